"""The main job by every door, with the real documentation, a real training and a real engine."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect
from running_studio import RunningStudio
from waiting import ENGINE, TRAINING, patient, wait_until

from sage_studio.settings import PROJECT

CONTRACT = json.loads((PROJECT / "tests" / "contract" / "contract.json").read_text(encoding="utf-8"))
OVER = ("completed", "failed", "stopped")

pytestmark = [pytest.mark.engine, pytest.mark.training]


def example(page, language):
    """The first example in a language on a page of the documentation."""
    text = (PROJECT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)[0]


@pytest.mark.browser
def test_a_person_walks_from_the_documentation_to_the_chat(browser, studio):
    """All five steps with mouse and keyboard, in Chinese."""
    context = browser.new_context(locale="zh-CN", viewport={"width": 1440, "height": 900})
    page = context.new_page()
    faults = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(studio.url)

    expect(page.locator("#dataset-source")).to_contain_text("📚 使用 SAGE 官方文档")
    page.locator("#dataset-source").get_by_text("📚 使用 SAGE 官方文档").click()
    page.locator("#docs-prepare").click()
    expect(page.locator("#dataset-report")).to_contain_text("sage-docs")
    page.locator("#dataset-tab-preview-button").locator("visible=true").click()
    expect(page.locator("#dataset-preview tbody tr").first).to_be_visible()
    page.locator("#dataset-train").click()

    page.locator("#train-more").get_by_role("button").first.click()
    fields = {"max_samples": "8", "num_train_epochs": "1", "max_length": "128"}
    wait_until(lambda: all(filled(page, name, value) for name, value in fields.items()))
    page.locator("#train-start").click()
    expect(page.locator("#run-head")).to_contain_text("Epoch", timeout=patient(TRAINING) * 1000)
    page.reload()
    task_id = wait_until(lambda: next(iter(studio.get("/api/finetune/tasks")), None))["id"]
    wait_until(lambda: studio.get(f"/api/finetune/tasks/{task_id}")["status"] in OVER, TRAINING)

    page.locator("#tasks-button").click()
    row = page.locator(f'#tasks-table tr[data-key="{task_id}"]')
    expect(row).to_contain_text("✅ 已完成")
    row.click()
    page.locator("#task-backend").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("确定要将此微调模型设置为 Studio 的对话后端吗？当前对话将使用此模型。")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert studio.get("/api/models")["current"] is None, "Esc cancels"
    page.locator("#task-backend").click()
    page.get_by_role("dialog").locator("[data-answer=ok]").click()
    served = task_id.replace("finetune-", "sage-finetuned-")
    switched = f"✅ 已切换到微调模型: {served}"
    expect(page.locator("#backend-notice")).to_contain_text(switched, timeout=patient(ENGINE) * 1000)
    expect(page.locator("#status-bar")).to_contain_text(served)

    page.locator("#task-chat").click()
    page.locator("#chat-settings").get_by_role("button").first.click()
    page.locator("#chat-max-tokens input[type=number]").fill("24")
    page.locator("#chat-message textarea").fill("什么是 SAGE？")
    page.locator("#chat-send").click()
    expect(page.locator("#chat-messages")).to_contain_text("tok/s", timeout=patient(ENGINE) * 1000)
    expect(page.locator("#chat-messages")).to_contain_text(served)
    assert answered_in_another_process(studio) == served

    page.locator("#chat-base").click()
    wait_until(lambda: studio.get("/api/models")["current"] == "SmolLM2-135M-Instruct", ENGINE)
    assert not [fault for fault in faults if "favicon" not in fault]
    context.close()
    log = (studio.home / "studio.log").read_text(encoding="utf-8")
    for line in (f"Registered model: {served}", f"Switched to model: {served}", "Loading model from "):
        assert line in log


def answered_in_another_process(studio):
    """Which model a script gets an answer from that imports the registry by itself."""
    code = (
        "from sage_studio.serving import vllm_registry as registry\n"
        "assert registry.generate('What is SAGE?', max_tokens=8)\n"
        "print(registry.current_model.name)"
    )
    env = {**os.environ, "SAGE_STUDIO_HOME": str(studio.home), **studio.variables}
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def filled(page, name, value):
    """Whether a field holds the value; a form still being laid out may drop what was typed, so type it again."""
    box = page.locator(f"#field-{name} input").first
    if box.input_value() == value:
        return True
    box.fill(value)
    box.press("Tab")
    page.wait_for_timeout(500)
    return False


def test_the_quick_starts_python_runs(studio, tmp_path):
    """The example as printed, against this studio: it ends by printing the tuned model's answer."""
    script = tmp_path / "example.py"
    script.write_text(example("quickstart.md", "python").replace("http://127.0.0.1:7860", studio.url), encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=patient(ENGINE))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    newest = studio.get("/api/finetune/tasks")[0]
    assert newest["status"] == "completed"
    assert studio.get("/api/models")["current"] == newest["served_name"]


def test_the_rest_examples_run(studio, tmp_path):
    """Each curl as printed; the training it starts is waited for, for the next test's sake."""
    script = example("rest.md", "bash").replace("http://127.0.0.1:7860", studio.url)
    script = script.replace("curl -s ", "curl -sf -w '\\n' ")
    done = subprocess.run(["bash", "-e", "-c", script], capture_output=True, text=True, timeout=patient(ENGINE))
    assert done.returncode == 0, done.stdout + done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
    assert answers[0]["status"] == "ok"
    assert answers[1]["stats"]["total_samples"] > 5
    assert answers[2]["status"] in ("queued", "preparing")
    assert answers[3][0]["id"] == answers[2]["id"]
    assert answers[4]["response"].strip()
    task = answers[2]["id"]
    wait_until(lambda: studio.get(f"/api/finetune/tasks/{task}")["status"] == "completed", TRAINING)


def test_client_endpoints_bear_real_names_and_bilingual_faults(studio, tmp_path):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(studio.url, verbose=False)
    api = client.view_api(return_format="dict")["named_endpoints"]
    assert set(CONTRACT["endpoints"]) <= set(api)
    beside_the_queue = httpx.post(f"{studio.url}/gradio_api/run/list_tasks", json={"data": []}, timeout=patient())
    assert beside_the_queue.status_code == 404
    names = [parameter["parameter_name"] for parameter in api["/start_finetune"]["parameters"]]
    assert {"model_name_or_path", "dataset_id", "learning_rate", "lora_r"} <= set(names)
    with pytest.raises(AppError, match=r"必须大于.*must be greater"):
        client.predict(model_name_or_path="x", dataset_id="y", learning_rate=0, api_name="/start_finetune")
    rows = tmp_path / "rows.json"
    rows.write_text('[{"instruction": "a?", "output": "b."}]', encoding="utf-8")
    assert client.predict(handle_file(rows), api_name="/upload_dataset")["stats"]["total_samples"] == 1
    with pytest.raises(AppError, match="not uploaded"):
        client.predict({"path": "/etc/passwd"}, api_name="/upload_dataset")


def test_streaming_and_unknown_models_by_rest(studio):
    import httpx

    body = {"message": "Say hello.", "stream": True, "max_tokens": 16, "temperature": 0}
    with httpx.stream("POST", f"{studio.url}/api/chat", json=body, timeout=patient(ENGINE)) as answer:
        events = [json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line]
    assert events[-1]["done"]
    assert len(events) > 2
    assert "".join(event["text"] for event in events).strip()
    refused = httpx.post(f"{studio.url}/api/chat", json={"message": "x", "model": "nobody"}, timeout=patient())
    assert refused.status_code == 404
    assert "nobody" in refused.json()["detail"]["message"]


def test_base_and_tuned_models_are_compared_and_the_engine_is_measured(studio):
    """All that the walks above have registered, in the real engine: each under its own name, and the figures of it."""
    names = [model["name"] for model in studio.get("/api/models")["models"]][:4]
    body = {"message": "What is SAGE?", "models": names, "max_tokens": 16, "temperature": 0}
    answers = studio.post("/api/compare", json=body)["answers"]
    assert [answer["error"] for answer in answers] == [None] * len(names)
    assert [answer["model"] for answer in answers] == names
    assert all(answer["response"].strip() for answer in answers)
    assert all(answer["tokens_per_second"] > 0 for answer in answers)
    if studio.get("/api/metrics")["engine"]["engine"] != "vllm":
        pytest.skip("only vLLM tells all of its figures")
    newest = wait_until(lambda: measured(studio.get("/api/metrics")["newest"]))
    assert newest["first_token_seconds"] > 0  # of buckets, so it need not lie below the latency of short answers
    assert 0 < newest["latency_p50"] <= newest["latency_p95"]
    assert 0 <= newest["kv_cache"] <= 1


def measured(newest):
    return newest if newest and newest["latency_p95"] else None


def test_killing_the_web_process_does_not_stop_the_training(new_home):
    """The trainer lives on; the next studio shows it running, and then completed."""
    home = new_home("killed")
    first = RunningStudio(home).start()
    rows = [{"instruction": f"What is {n} plus {n}?", "output": f"It is {2 * n}."} for n in range(24)]
    dataset = first.post("/api/datasets", files={"file": ("sums.json", json.dumps(rows))})
    config = {"model_name_or_path": "SmolLM2-135M-Instruct", "dataset_id": dataset["id"], "max_length": 64}
    first.post("/api/finetune/start", json={"config": {**config, "num_train_epochs": 1}})
    task = wait_until(lambda: _training(first), TRAINING)
    first.kill()
    again = RunningStudio(home).start()
    try:
        seen = again.get(f"/api/finetune/tasks/{task['id']}")
        assert seen["status"] == "training", "it is shown running"
        wait_until(lambda: again.get(f"/api/finetune/tasks/{task['id']}")["status"] in OVER, TRAINING)
        done = again.get(f"/api/finetune/tasks/{task['id']}")
        assert done["status"] == "completed"
        assert done["step"] == done["total_steps"]
        assert Path(done["output_dir"], "adapter_model.safetensors").is_file()
    finally:
        again.stop()


def _training(studio):
    newest = studio.get("/api/finetune/tasks")[0]
    assert newest["status"] not in OVER, newest
    return newest if newest["status"] == "training" and newest["step"] else None
