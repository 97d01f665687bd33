"""The studio's SFT against a bare TRL script, and LLaMA-Factory where it is installed: rows per second, same rows.

``python -m benchmarks.training_speed MODEL DATA``: MODEL is a model folder, DATA a ``data.jsonl`` of the studio. Each
has its own process and the same settings: LoRA of rank 16 with dropout, bf16, batches of 4 rows of up to 256 tokens in
the same order. Prints the median seconds per step after the first, by the clock and of CPU time (which bears a busy
machine), and the losses, which must be equal but for rounding and dropout's chance (LLaMA-Factory renders and cuts rows
in its own way, so that its losses are others).
``--llamafactory PYTHON`` names the interpreter of an environment that has LLaMA-Factory.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from transformers import AutoTokenizer

from sage_studio.training.progress import Job
from sage_studio.training.recipe import dump_recipe
from sage_studio.training.recipes import SFTRecipe
from sage_studio.training.rows import encode_each, read_rows

CLOCK = """
import json, sys, time
from transformers import TrainerCallback
class Clock(TrainerCallback):
    def on_log(self, args, state, control, logs, **_):
        if "loss" in logs:
            print("LOGGED", json.dumps([time.monotonic(), time.process_time(), float(logs["loss"])]), flush=True)
"""
STUDIO = """
from sage_studio.training.__main__ import main
from sage_studio.training.reporting import Reporter
told = Reporter.on_log
def on_log(self, args, state, control, logs, **rest):
    Clock().on_log(args, state, control, logs)
    told(self, args, state, control, logs, **rest)
Reporter.on_log = on_log
sys.exit(main(sys.argv[4:]))
"""
BARE = """
from datasets import load_dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer
model, data, steps, out = sys.argv[1:]
SFTTrainer(
    model=model, train_dataset=load_dataset("json", data_files=data, split="train"), callbacks=[Clock()],
    args=SFTConfig(out, max_steps=int(steps), per_device_train_batch_size=4, max_length=256, learning_rate=2e-4,
        gradient_checkpointing=False, use_cpu=True, seed=42, save_strategy="no", disable_tqdm=True, logging_steps=1,
        lr_scheduler_type="cosine", model_init_kwargs={"dtype": "bfloat16"}),
    peft_config=LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM"),
).train()
"""
FACTORY = """
import os
os.environ["DISABLE_VERSION_CHECK"] = "1"
from llamafactory.train.tuner import run_exp
model, data, steps, out = sys.argv[1:]
run_exp(dict(
    model_name_or_path=model, stage="sft", do_train=True, finetuning_type="lora", lora_rank=16, lora_alpha=32,
    lora_dropout=0.05, lora_target="all", dataset="rows", dataset_dir=data, template="smollm2", cutoff_len=256,
    output_dir=out, max_steps=int(steps), per_device_train_batch_size=4, learning_rate=2e-4, bf16=True, seed=42,
    lr_scheduler_type="cosine", logging_steps=1, save_strategy="no", report_to="none", use_cpu=True,
    disable_gradient_checkpointing=True, preprocessing_num_workers=1,
), callbacks=[Clock()])
"""


class Measured(NamedTuple):
    """A run: the median seconds per step after the first, by the clock and of CPU time, and the loss of each step."""

    seconds: float
    cpu_seconds: float
    losses: list[float]


def main() -> None:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--llamafactory", metavar="PYTHON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = fitting_rows(options.model, options.data, 4 * options.steps)
        runs = {"studio": run_studio(folder, options.model, rows, options.steps)}
        runs["bare TRL"] = run_script(folder, BARE, sys.executable, options.model, plain(folder, rows), options.steps)
        if options.llamafactory:
            data = factory_data(folder, rows)
            runs["LLaMA-Factory"] = run_script(
                folder, FACTORY, options.llamafactory, options.model, data, options.steps
            )
    for said, run in runs.items():
        slower, more = run.seconds / runs["studio"].seconds, run.cpu_seconds / runs["studio"].cpu_seconds
        print(f"{said:14} {run.seconds:6.2f} s/step ({slower:.2f} x)  {4 / run.seconds:5.2f} rows/s", end="  ")
        print(f"{run.cpu_seconds:6.2f} CPU s/step ({more:.2f} x)  loss", *(f"{loss:.3f}" for loss in run.losses))
    pairs = zip(runs["studio"].losses, runs["bare TRL"].losses, strict=True)
    print(f"studio and bare TRL differ by at most {max(abs(a / b - 1) for a, b in pairs):.2%} in any step's loss")


def fitting_rows(model: str, data: str, count: int) -> list[dict[str, object]]:
    """The first rows whose prompt leaves room for an answer: no trainer then leaves one out."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = read_rows(Path(data), 8 * count)
    encoded = zip(rows, encode_each(rows, tokenizer), strict=True)
    return [dict(row) for row, tokens in encoded if tokens.learned(256)][:count]


def run_studio(folder: Path, model: str, rows: list[dict[str, object]], steps: int) -> Measured:
    """A task folder, followed by the studio's training child."""
    values = {"max_steps": steps, "per_device_train_batch_size": 4, "max_length": 256, "learning_rate": 2e-4}
    recipe = SFTRecipe(model_name_or_path=model, dataset_id="rows", **values)
    data = plain(folder, rows)
    (folder / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    (folder / "job.json").write_text(Job(model_location=model, data_path=data).model_dump_json(), encoding="utf-8")
    return run_script(folder, STUDIO, sys.executable, model, data, steps)


def run_script(folder: Path, script: str, python: str, model: str, data: str, steps: int) -> Measured:
    """A script in a process of its own."""
    out = folder if script is STUDIO else folder / "out"
    command = [python, "-c", CLOCK + script, model, data, str(steps), str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    lines = [line.partition("LOGGED ")[2] for line in done.stdout.splitlines() if "LOGGED " in line]
    times, cpu_times, losses = zip(*map(json.loads, lines), strict=True)
    return Measured(median_gap(times), median_gap(cpu_times), list(losses))


def plain(folder: Path, rows: list[dict[str, object]]) -> str:
    """The rows as a file of two columns."""
    path = folder / "plain.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def factory_data(folder: Path, rows: list[dict[str, object]]) -> str:
    """The rows as LLaMA-Factory's folder of data sets."""
    data = folder / "factory"
    data.mkdir()
    turns = [{"messages": [*row["prompt"], *row["completion"]]} for row in rows]  # type: ignore[misc]
    (data / "rows.json").write_text(json.dumps(turns), encoding="utf-8")
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    shape = {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": {**tags, "system_tag": "system"}}
    (data / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json", **shape}}))
    return str(data)


def median_gap(times: Sequence[float]) -> float:
    """The median difference of neighbours."""
    gaps = sorted(after - before for before, after in pairwise(times))
    return gaps[len(gaps) // 2]


if __name__ == "__main__":
    main()
