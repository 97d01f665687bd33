"""How ``home-0.1.tar.xz`` and ``home-0.1.json`` were made: real runs of SAGE Studio 0.1 (commit adf52dc) on a CPU.

    python tests/contract/make_home.py CHECKOUT_OF_0_1

Starts 0.1's ``app.py`` with the home /srv/sage, works with it by REST alone, records what REST answers, and packs the
home without the unpacked built-in model. Tests put the folder of their own in the place of /srv/sage.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import torch
from sentence_transformers.sentence_transformer.model import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizerFast,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

HERE, HOME, FILES = Path(__file__).parent, Path("/srv/sage"), Path("/srv/files")
LEFT_OUT = ("SmolLM2-135M-Instruct", ".footprints", "studio.lock", "uploads")
CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}> {{ message.content }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
TEXT = """# Orrin

The island of Orrin lies in the northern sea. Its harbour is called Velm. About nine hundred people live there. The
lighthouse of Orrin was built in 1871 and is painted red. The ferry to the mainland takes two hours.

# Food

The people of Orrin are known for smoked trout and for a bread made of barley. The market of Orrin is held on Saturdays
at the harbour of Velm. The oldest bakery of the island was opened by Marta Lund in 1902.
"""
TINY, TINY_ENCODER, BROKEN = (HOME / "tiny" / name for name in ("llama", "bert", "broken"))
SHORT = {"lora_r": 1, "lora_alpha": 2, "max_steps": 3, "max_length": 256, "save_steps": 2, "lora_dropout": 0}
URL = "http://127.0.0.1:18061"


def main() -> None:
    checkout = Path(sys.argv[1]).resolve()
    write_models()
    files = write_files()
    with studio(checkout) as api:
        fill(api, files)
        record = {"made_by": "adf52dc", "home": str(HOME), "answers": answers(api)}
    with closing(sqlite3.connect(HOME / "studio_finetune/studio.db")) as database:  # as if the power failed
        for (pid,) in database.execute("SELECT pid FROM tasks WHERE status = 'training'"):
            os.kill(pid, signal.SIGKILL)
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (HERE / "home-0.1.json").write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    with tarfile.open(HERE / "home-0.1.tar.xz", "w:xz", preset=9) as archive:
        archive.add(HOME, ".", filter=anonymous)


def fill(api: httpx.Client, files: dict[str, Path]) -> None:
    """One of everything."""
    data = {name: upload(api, path) for name, path in files.items() if path.suffix != ".csv" and path.is_file()}
    mapping = {"format": "Alpaca", "columns": {"instruction": "Ask", "output": "Say"}}
    table = upload(api, files["table"], name="table", mapping=json.dumps(mapping))
    docs = post(api, "/api/datasets/from-repository", address=str(files["docs"]), folder="docs_src", name="docs")
    post(api, "/api/finetune/prepare-sage-docs")
    post(api, f"/api/datasets/{table}/edit", changes=[{"row": 1, "answer": "Nine."}, {"row": 2, "exclude": True}])
    portions = [{"dataset_id": data["greetings"]}, {"dataset_id": table, "weight": 0.5}]
    post(api, "/api/datasets/combine", portions=portions, name="mixed")
    job = post(api, "/api/datasets/report", dataset_id=data["greetings"], model=str(TINY), against=table)
    until(lambda: get(api, f"/api/dataset-jobs/{job['id']}")["state"] == "completed")

    tiny = {"model_name_or_path": str(TINY), **SHORT}
    smol = {"model_name_or_path": "SmolLM2-135M-Instruct", **SHORT, "lora_target_modules": "q_proj"}
    sums = start(api, "sft", name="sums", dataset_id=data["greetings"], **tiny, eval_share=0.25)
    start(api, "sft", name="sums again", dataset_id=data["greetings"], **tiny, start_from=sums)
    whole = start(api, "sft", ends="", name="whole", dataset_id=table, **{**tiny, "use_lora": False})
    broken = start(api, "sft", ends="", name="broken", dataset_id=table, **{**tiny, "model_name_or_path": str(BROKEN)})
    os.truncate(BROKEN / "model.safetensors", 5000)
    wait_for(api, whole, "completed")
    wait_for(api, broken, "failed")
    start(api, "dpo", name="preferences", dataset_id=data["preferences"], **tiny)
    towns = {"model_name_or_path": str(TINY_ENCODER), "max_steps": 2, "per_device_train_batch_size": 4, "lora_r": 1}
    embedder = start(api, "embedding", name="towns", dataset_id=data["pairs"], **towns)

    served = post(api, "/api/finetune/use-as-backend", task_id=sums)["model_name"]
    for winner in (served, TINY.name):
        post(api, "/api/compare/votes", message="What is 2 plus 2?", models=[TINY.name, served], winner=winner)
    post(api, "/api/finetune/use-as-retriever", task_id=embedder, dataset_id=docs["id"])
    post(api, "/api/retrieve", query="Where is the harbour?")
    post(api, "/api/finetune/templates", title="My sums", type="sft", config={"lora_r": 4, "learning_rate": 0.0003})

    knowledge = {"rounds": 2, "answers": "quoted", "min_agreement": 0, "min_support": 0, "long_dependency": False}
    small = {"chunk_size": 64, "questions_per_chunk": 3, "references": 1, "reference_size": 64}
    start(api, "kbalign", name="island", input_path=str(files["island"]), **{**smol, **knowledge, **small})

    stopped = start(api, "sft", ends="", name="stopped", dataset_id=table, **{**tiny, "max_steps": 100_000})
    until(lambda: get(api, f"/api/finetune/tasks/{stopped}")["progress"] > 0)
    running = start(api, "sft", ends="", name="for long", dataset_id=table, **{**tiny, "max_steps": 1_000_000})
    start(api, "sft", ends="", name="queued", dataset_id=table, **tiny)
    checked(api.delete(f"/api/finetune/tasks/{stopped}"))
    until(lambda: get(api, f"/api/finetune/tasks/{running}")["status"] == "training")


def write_models() -> None:
    """A language model, the same once more to be broken, and an embedder; some ten thousand numbers each."""
    torch.manual_seed(0)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token=letters[0], chat_template=CHAT_TEMPLATE)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    llama = LlamaForCausalLM(LlamaConfig(vocab_size=len(letters), num_key_value_heads=1, **sizes))
    for folder in (TINY, BROKEN):
        llama.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz0123456789.?"]
    encoder = HOME / "encoder"
    encoder.mkdir()
    (encoder / "vocab.txt").write_text("\n".join([*words, *(f"##{word}" for word in words[5:])]))
    BertTokenizerFast(str(encoder / "vocab.txt")).save_pretrained(encoder)
    BertModel(BertConfig(vocab_size=2 * len(words) - 5, max_position_embeddings=256, **sizes)).save_pretrained(encoder)
    SentenceTransformer(modules=[Transformer(str(encoder)), Pooling(16)], device="cpu").save(str(TINY_ENCODER))
    subprocess.run(["rm", "-r", str(encoder)], check=True)


def write_files() -> dict[str, Path]:
    """What a person brings: name -> path."""
    FILES.mkdir(parents=True, exist_ok=True)
    rows = {
        "greetings.jsonl": [{"instruction": f"What is {n} plus {n}?", "output": f"{2 * n}."} for n in range(1, 9)],
        "preferences.jsonl": [{"prompt": f"Say {n}.", "chosen": f"It is {n}.", "rejected": "No."} for n in range(8)],
        "pairs.jsonl": [
            {"query": f"Where is town {n}?", "pos": [f"Town {n} lies by the river."], "neg": [f"Hill {n} is high."]}
            for n in range(12)
        ],
    }
    for name, items in rows.items():
        (FILES / name).write_text("".join(json.dumps(item) + "\n" for item in items))
    chats = [
        {"conversations": [{"from": "human", "value": f"你好 {n}"}, {"from": "gpt", "value": f"您好，{n}。"}]}
        for n in range(4)
    ]
    (FILES / "chats.json").write_text(json.dumps(chats, ensure_ascii=False))
    (FILES / "table.csv").write_text("Id,Ask,Say\n" + "".join(f"{n},What is {n}?,A number {n}.\n" for n in range(1, 7)))
    (FILES / "island.md").write_text(TEXT)
    docs = FILES / "docs"
    (docs / "docs_src").mkdir(parents=True, exist_ok=True)
    for name in ("one", "two"):
        (docs / "docs_src" / f"{name}.md").write_text(f"# Part {name}\n\nAbout part {name}.\n\n" + TEXT)
    git = ["git", "-C", str(docs), "-c", "user.name=sage", "-c", "user.email=sage@localhost"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "docs"]):
        subprocess.run([*git, *command], check=True)
    return {path.stem: path for path in FILES.iterdir()}


@contextmanager
def studio(checkout: Path):
    """0.1 as a person starts it, and a client of its REST."""
    own = {
        "HOME": str(HOME),
        "PORT": URL.rpartition(":")[2],
        "ENGINE": "transformers",
        "DOCS_REPO": str(FILES / "docs"),
    }
    variables = {f"SAGE_STUDIO_{name}": value for name, value in own.items()}
    environment = {**os.environ, **variables, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen([sys.executable, "app.py"], cwd=checkout, env=environment)
    with httpx.Client(base_url=URL, timeout=600) as api:
        try:
            until(lambda: process.poll() is not None or alive(api))
            yield api
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def answers(api: httpx.Client) -> dict[str, object]:
    """Path -> what REST answers, for everything that is kept."""
    paths = ["/api/datasets", "/api/finetune/tasks", "/api/finetune/templates", "/api/compare/votes", "/api/models"]
    paths += ["/api/retriever", "/api/dataset-jobs"]
    for dataset in get(api, "/api/datasets"):
        mine = f"/api/datasets/{dataset['id']}"
        paths += [mine, f"{mine}/preview?limit=100"]
    tasks = [task["id"] for task in get(api, "/api/finetune/tasks")]
    for task in tasks:
        mine = f"/api/finetune/tasks/{task}"
        paths += [mine, f"{mine}/logs?limit=50", f"{mine}/files"]
    paths.append("/api/finetune/compare?ids=" + ",".join(tasks[-4:]))
    return {path: get(api, path) for path in paths}


def upload(api: httpx.Client, path: Path, **form: str) -> str:
    with path.open("rb") as file:
        return checked(api.post("/api/datasets", files={"file": (path.name, file)}, data=form))["id"]


def start(api: httpx.Client, method: str, ends: str = "completed", **config: object) -> str:
    """Start a task and wait for its end. Returns its id."""
    task = post(api, "/api/finetune/start", type=method, config=config)["id"]
    if ends:
        wait_for(api, task, ends)
    return task


def wait_for(api: httpx.Client, task: str, ends: str) -> None:
    until(lambda: get(api, f"/api/finetune/tasks/{task}")["status"] in ("completed", "failed", "stopped"))
    found = get(api, f"/api/finetune/tasks/{task}")
    assert found["status"] == ends, found


def until(holds, seconds: float = 1500) -> None:
    latest = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < latest
        time.sleep(0.2)


def alive(api: httpx.Client) -> bool:
    try:
        return api.get("/api/health").is_success
    except httpx.TransportError:
        return False


def get(api: httpx.Client, path: str):
    return checked(api.get(path))


def post(api: httpx.Client, path: str, **body: object):
    return checked(api.post(path, json=body))


def checked(answer: httpx.Response):
    assert answer.is_success, f"{answer.request.method} {answer.request.url}: {answer.text}"
    return answer.json()


def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if any(part in LEFT_OUT for part in Path(entry.name).parts):
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "sage"
    return entry


if __name__ == "__main__":
    main()
