"""The same story with each real engine: a base model, a fresh adapter, switches, cancel, a long prompt, another
process, a restarted studio, a crash, a failed change of the engine, and an adapter that must be merged.

Texts are compared only where every CPU writes the same: a batch rounds otherwise than its rows alone, and where two
words are about equally likely that is enough for another one. So the adapters here are trained until they say one
sentence of their own, each word of it with a probability near 1, and the base says "Paris" among its words.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from waiting import patient, wait_until

from sage_studio.database import Database
from sage_studio.errors import EngineUnavailable, InvalidInput, InvalidModel
from sage_studio.evaluation.arena import compare
from sage_studio.services.rag import answer_twice, grounded
from sage_studio.serving.registry import VLLMRegistry
from sage_studio.serving.types import EngineState, Source
from sage_studio.serving.vllm import vllm_installed
from sage_studio.settings import load_settings

pytestmark = pytest.mark.engine

QUESTION = [{"role": "user", "content": "Name the capital of France."}]


SAYS = {"fresh": "Copper, copper, copper, copper, copper, copper.", "other": "Violet, violet, violet, violet, violet."}
"""What each adapter answers to the question."""


@pytest.fixture(scope="module")
def adapters(built_in_model, tmp_path_factory) -> dict[str, Path]:
    """An adapter for each sentence of `SAYS`."""
    folder = tmp_path_factory.mktemp("adapters")
    return {name: train_to_say(built_in_model, folder / name, says) for name, says in SAYS.items()}


def train_to_say(base_model, folder, sentence) -> Path:
    """A LoRA adapter that answers the question with the sentence: each of its tokens has a probability of 95 %."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(3)
    tokenizer = AutoTokenizer.from_pretrained(base_model)
    prompt = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, tokenize=False)
    asked, said = tokenizer(prompt).input_ids, tokenizer(f"{sentence}{tokenizer.eos_token}").input_ids
    ids = torch.tensor([asked + said])
    base = AutoModelForCausalLM.from_pretrained(base_model, dtype=torch.float32)
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, config)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=2e-3)
    for _ in range(100):
        logits = model(input_ids=ids).logits[0, len(asked) - 1 : -1]
        losses = torch.nn.functional.cross_entropy(logits, ids[0, len(asked) :], reduction="none")
        if losses.max() < 0.05:
            model.save_pretrained(folder)
            return folder
        losses.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    raise AssertionError(f"the adapter did not learn to say {sentence!r}")


@pytest.fixture(scope="module")
def dora_adapter(built_in_model, tmp_path_factory) -> Path:
    """DoRA, which vLLM cannot hold, begun with OLoRA, which no engine can: it changes the base."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("dora") / "dora"
    torch.manual_seed(3)
    base = AutoModelForCausalLM.from_pretrained(built_in_model, dtype=torch.float32)
    config = LoraConfig(
        r=8, target_modules=["q_proj", "v_proj"], use_dora=True, init_lora_weights="olora", task_type="CAUSAL_LM"
    )
    tuned = get_peft_model(base, config)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            weight.data += 0.1 * torch.randn_like(weight)
    tuned.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["transformers", "vllm"])
def served(request, built_in_model, adapters, tmp_path_factory):
    """A registry with a real engine, its base model current."""
    if request.param == "vllm" and not vllm_installed():
        pytest.skip("vLLM is not installed in this environment")
    settings = load_settings(home=tmp_path_factory.mktemp(request.param), engine=request.param)
    registry = VLLMRegistry()
    registry.configure(settings, Database(settings.database_path))
    registry.register_model("base", str(built_in_model), {"kind": "base"})
    for name, folder in adapters.items():
        registry.register_model(name, str(folder), {"base": str(built_in_model), "base_name": "base"})
    registry.switch_model("base")
    yield registry
    registry.close()
    assert registry.status().state is EngineState.DOWN


def answer(registry, **options):
    chunks = list(registry.stream(QUESTION, **{"temperature": 0, "max_tokens": 24, **options}))
    return "".join(chunk.text for chunk in chunks), chunks[-1]


def running(registry):
    return registry.metrics()["vllm:num_requests_running"]


def test_switching_to_a_fresh_adapter_and_back(served):
    said, end = answer(served)
    assert "Paris" in said
    assert (end.model, end.done) == ("base", True)
    assert end.completion_tokens > 0
    assert end.prompt_tokens > 0
    assert end.first_token_seconds > 0
    pid = served._components.engines.recorded().record.pid

    served.switch_model("fresh")
    said, end = answer(served)
    assert (said, end.model) == (SAYS["fresh"], "fresh")

    served.switch_model("base")
    assert "Paris" in answer(served)[0]
    assert answer(served, model="fresh")[0] == SAYS["fresh"]
    assert served._components.engines.recorded().record.pid == pid, "an adapter is loaded hot"


def test_a_stream_that_is_closed_ends_in_the_engine(served):
    stream = served.stream([{"role": "user", "content": "Tell a very long story."}], temperature=0, max_tokens=1500)
    next(stream)
    wait_until(lambda: running(served) == 1)
    stream.close()
    wait_until(lambda: running(served) == 0)


BRIDGE = [Source("The longest bridge of Orvik is the Lume.", "town.md", "Bridges", 0.7)]
LUME = [Source("The Lume is 240 metres long and painted green.", "town.md", "Lume", 0.6)]


def test_the_first_answer_is_looked_up_with_and_the_second_is_drawn_from_what_that_finds(served):
    asked = [{"role": "user", "content": "How long is the longest bridge of Orvik?"}]
    queries, prompts, said = [], [], []

    def look_up(query):
        queries.append(query)
        return BRIDGE if len(queries) == 1 else LUME

    def ask(messages):
        prompts.append(messages)
        said.append("")
        for chunk in served.stream(messages, temperature=0, max_tokens=40):
            said[-1] += chunk.text
            yield chunk

    chunks = list(answer_twice(asked, ask, look_up))
    first, second = said
    assert prompts == [grounded(asked, found) for found in (BRIDGE, LUME)]
    assert queries == [asked[0]["content"], f"{asked[0]['content']}\n{first.strip()}"]
    assert "".join(chunk.text for chunk in chunks) == second
    assert "Lume" in first
    assert "240" in second
    assert (list(chunks[-1].sources), chunks[-1].look_ups, chunks[-1].model) == (LUME, 2, "base")
    wait_until(lambda: running(served) == 0)


def test_a_first_answer_that_is_left_ends_in_the_engine(served):
    asked = [{"role": "user", "content": "Tell a very long story of the longest bridge."}]
    story = answer_twice(
        asked, lambda messages: served.stream(messages, temperature=0, max_tokens=1500), lambda _: BRIDGE
    )
    assert next(story).text == ""
    wait_until(lambda: running(served) == 1)
    story.close()
    wait_until(lambda: running(served) == 0)


def test_an_answer_stops_where_it_is_told_to(served):
    said, end = answer(served, stop=[" Paris"])
    assert "Paris" not in said
    assert end.finish_reason == "stop"
    assert answer(served, max_tokens=2)[1].finish_reason == "length"


def test_a_prompt_that_is_too_long_names_the_limit(served):
    with pytest.raises(InvalidInput, match="2048 tokens"):
        served.generate("word " * 3000)
    assert "Paris" in answer(served)[0], "the engine goes on"


def test_another_process_gets_answers_from_the_model_switched_here(served):
    served.switch_model("fresh")
    code = (
        "from sage_studio.serving import vllm_registry as registry\n"
        f"print(repr((registry.current_model.name, registry.generate({QUESTION!r}, temperature=0, max_tokens=24))))"
    )
    settings = served._components.settings
    env = {**os.environ, "SAGE_STUDIO_HOME": str(settings.home), "SAGE_STUDIO_ENGINE": settings.engine}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == repr(("fresh", SAYS["fresh"]))
    assert served.status().state is EngineState.READY, "the other process leaves the engine alone"


def test_base_and_two_adapters_answer_side_by_side_as_they_do_alone(served):
    names = ["base", "fresh", "other"]
    alone = {name: answer(served, model=name)[0] for name in names}

    replies = {}
    streams = compare(lambda name: served.stream(QUESTION, model=name, temperature=0, max_tokens=24), names)
    for piece in streams:
        replies[names[piece.column]] = piece.reply
    assert {name: reply.error for name, reply in replies.items()} == dict.fromkeys(names)
    assert {name: reply.model for name, reply in replies.items()} == {name: name for name in names}
    for texts in (alone, {name: reply.text for name, reply in replies.items()}):
        assert {name: texts[name] for name in SAYS} == SAYS
        assert "Paris" in texts["base"], "a token that asked for no adapter gets none"
        assert not re.search("copper|violet", texts["base"], re.IGNORECASE)


def test_an_engine_survives_its_studio_and_is_adopted_by_the_next(served):
    """Another studio takes the engine over, loads an adapter, and is killed."""
    settings, before = served._components.settings, served._components.engines.recorded().record
    code = (
        "import time\n"
        "from sage_studio.serving import vllm_registry as registry\n"
        "registry.adopt(); registry.switch_model('fresh'); print('ready', flush=True); time.sleep(600)"
    )
    env = {**os.environ, "SAGE_STUDIO_HOME": str(settings.home), "SAGE_STUDIO_ENGINE": settings.engine}
    studio = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True)
    assert studio.stdout.readline() == "ready\n"
    studio.kill()
    studio.wait(patient())
    studio.stdout.close()

    served.adopt()
    assert served._components.engines.recorded().record.pid == before.pid
    assert served.current_model.name == "base", "as after every restart"
    assert "Paris" in answer(served)[0]
    assert answer(served, model="fresh")[0] == SAYS["fresh"]


def test_a_restarted_studio_adopts_the_engine_and_what_it_holds(served):
    settings = served._components.settings
    restarted = VLLMRegistry()
    restarted.configure(settings, Database(settings.database_path))
    restarted.adopt()
    restarted._components.watchdog.stop()
    before, now = served._components.engines.recorded().record, restarted._components.engines.recorded().record
    assert (now.pid, now.url) == (before.pid, before.url)
    assert restarted.current_model.name == "base", "as after every restart"
    assert "Paris" in answer(restarted)[0]
    assert answer(restarted, model="fresh")[0] == SAYS["fresh"]


def test_an_adapter_that_does_not_fit_the_base_leaves_the_old_model_answering(served, adapters, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "bent"
    shutil.copytree(adapters["fresh"], folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    bent = {name: torch.cat([value, value], dim=-1) if "lora_A" in name else value for name, value in tensors.items()}
    save_file(bent, folder / "adapter_model.safetensors")
    served.register_model("bent", str(folder), {"base": served.models()[0].path, "base_name": "base"})
    served.switch_model("fresh")
    with pytest.raises((InvalidModel, EngineUnavailable)):
        served.switch_model("bent")
    assert served.current_model.name == "fresh"
    assert answer(served)[0] == SAYS["fresh"]


def test_after_a_kill_the_next_question_is_answered_with_the_adapter_loaded_again(served):
    served.switch_model("fresh")
    record = served._components.engines.recorded().record
    children = psutil.Process(record.pid).children(recursive=True)
    os.kill(record.pid, signal.SIGKILL)
    wait_until(lambda: served.status().state is EngineState.FAILED)
    again, end = answer(served)
    assert (again, end.model) == (SAYS["fresh"], "fresh")
    assert served.status().state is EngineState.READY
    assert not any(child.is_running() for child in children), "nothing of the killed engine is left"


def test_a_change_of_the_engine_that_fails_never_disturbs_the_chat(served, built_in_model, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(built_in_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 100}))
    served.register_model("broken", str(folder), {"kind": "full", "base": str(built_in_model), "base_name": "base"})
    served.switch_model("fresh")
    pid = served._components.engines.recorded().record.pid
    with pytest.raises(EngineUnavailable, match="exited unexpectedly"):
        served.switch_model("broken")
    assert served._components.engines.recorded().record.pid == pid
    assert answer(served)[0] == SAYS["fresh"]


def test_an_adapter_that_no_engine_holds_is_merged_and_takes_over(served, built_in_model, dora_adapter):
    base, _ = answer(served, model="base")
    old = served._components.engines.recorded().record.pid
    served.register_model("dora", str(dora_adapter), {"base": str(built_in_model), "base_name": "base"})
    served.switch_model("dora")
    said, end = answer(served)
    assert end.model == "dora"
    assert said != base
    merged = Path(served.current_model.config["merged"])
    assert merged.is_relative_to(served._components.settings.root)
    assert served.current_model.loaded
    wait_until(lambda: not psutil.pid_exists(old))
