"""The studio's SFT against a bare TRL script, and LLaMA-Factory where it is installed: rows per second, same rows.

    python -m benchmarks.training_speed MODEL DATA [--steps N] [--llamafactory PYTHON]

MODEL is a model folder, DATA a ``data.jsonl`` of the studio. Each has its own process and the same settings: LoRA of
rank 16 with dropout, bf16, batches of 4 rows of up to 256 tokens in the same order (LLaMA-Factory gets the token ids,
for it has templates of its own). They take turns, a step each, while the others wait: so whatever else the machine does
bears on all alike. Prints rows per second after the first step, by the clock and by CPU time, how much faster the
studio is (the median over the steps), and how far the losses are apart, which must be equal but for rounding and
dropout's chance. Exits with 1 when the studio is too slow or the losses differ. All use the GPU where there is one;
there TRL's own path is the fast one, and the studio must only keep up with it.

``--llamafactory PYTHON`` names the interpreter of an environment that has LLaMA-Factory.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
from datasets import Dataset, DatasetDict
from transformers import AutoTokenizer

from sage_studio.training.progress import TrainingJob
from sage_studio.training.recipes import SFTRecipe, dump_recipe
from sage_studio.training.tokenize import ANSWERS, encode_each, read_rows

BATCH, LENGTH = 4, 256
STUDIO, TRL, FACTORY = "studio", "bare TRL", "LLaMA-Factory"
LEAST_FASTER = {"cpu": {TRL: 1.5, FACTORY: 1.1}, "cuda": {TRL: 0.98, FACTORY: 1.1}}
LOSS_APART = 0.02
"""Most that two losses of a step may differ by, as a share."""
TURNS = """
import json, sys, time
from transformers import TrainerCallback
class Turns(TrainerCallback):
    began, loss = None, 0.0
    def on_step_begin(self, *_, **__):
        self.tell()
        sys.stdin.readline()
        self.began = time.monotonic(), time.process_time()
    def on_log(self, args, state, control, logs, **_):
        self.loss = float(logs.get("loss", self.loss))
    def on_train_end(self, *_, **__):
        self.tell()
    def tell(self):
        now = time.monotonic(), time.process_time()
        spent = [after - before for after, before in zip(now, self.began or now)]
        print("TURN", json.dumps([*spent, self.loss]), flush=True)
"""
SCRIPTS = {
    STUDIO: """
from sage_studio.training.__main__ import main
from sage_studio.training.methods import sft
model, data, steps, out = sys.argv[1:]
class Timed(sft.AnswerTrainer):
    def __init__(self, **given):
        super().__init__(**given)
        self.add_callback(Turns())
sft.AnswerTrainer = Timed
sys.exit(main([out]))
""",
    TRL: """
from datasets import load_dataset
from peft import LoraConfig
import torch
from trl import SFTConfig, SFTTrainer
model, data, steps, out = sys.argv[1:]
SFTTrainer(
    model=model, train_dataset=load_dataset("json", data_files=data, split="train"), callbacks=[Turns()],
    args=SFTConfig(out, max_steps=int(steps), per_device_train_batch_size=4, max_length=256, learning_rate=2e-4,
        gradient_checkpointing=False, use_cpu=not torch.cuda.is_available(), seed=42, save_strategy="no",
        disable_tqdm=True, logging_steps=1, lr_scheduler_type="cosine", model_init_kwargs={"dtype": "bfloat16"}),
    peft_config=LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM"),
).train()
""",
    FACTORY: """
import os
import torch
os.environ["DISABLE_VERSION_CHECK"] = "1"
from llamafactory.train.tuner import run_exp
model, data, steps, out = sys.argv[1:]
run_exp(dict(
    model_name_or_path=model, stage="sft", do_train=True, finetuning_type="lora", lora_rank=16, lora_alpha=32,
    lora_dropout=0.05, lora_target="all", dataset="rows", tokenized_path=data, template="smollm2", cutoff_len=256,
    output_dir=out, max_steps=int(steps), per_device_train_batch_size=4, learning_rate=2e-4, bf16=True, seed=42,
    lr_scheduler_type="cosine", logging_steps=1, save_strategy="no", report_to="none",
    use_cpu=not torch.cuda.is_available(), disable_gradient_checkpointing=True,
), callbacks=[Turns()])
""",
}


class Step(NamedTuple):
    """One optimizer step: seconds by the clock and of CPU time, and the loss."""

    seconds: float
    cpu_seconds: float
    loss: float


class Trainer:
    """A training process that waits before each of its steps."""

    def __init__(self, python: str, script: str, *given: str) -> None:
        self._process = subprocess.Popen(
            [python, "-c", TURNS + script, *given],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},  # as the launcher does
        )
        self._told()

    def step(self) -> Step:
        """Let it take the next one."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._told()

    def end(self) -> None:
        """Wait for what it does after the last one."""
        self._process.communicate()

    def _told(self) -> Step:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if "TURN " in line:
                return Step(*json.loads(line.partition("TURN ")[2]))
        raise SystemExit(f"a trainer ended with {self._process.wait()}")


def main() -> int:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--llamafactory", metavar="PYTHON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = measure(Path(folder), options.model, options.data, options.steps, options.llamafactory)
    return report({name: steps[1:] for name, steps in runs.items()})


def measure(folder: Path, model: str, data: Path, count: int, factory: str | None) -> dict[str, list[Step]]:
    """The steps of each trainer, taken in turn."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = fitting_rows(tokenizer, data, BATCH * count)
    plain, tokens, task = folder / "rows.jsonl", folder / "tokens", folder / "task"
    plain.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    write_tokens(tokenizer, rows, tokens)
    write_task(task, model, plain, count)
    given = {STUDIO: (plain, task), TRL: (plain, folder / "trl"), FACTORY: (tokens, folder / "factory")}
    pythons = {STUDIO: sys.executable, TRL: sys.executable} | ({FACTORY: factory} if factory else {})
    trainers = {
        name: Trainer(python, SCRIPTS[name], model, str(given[name][0]), str(count), str(given[name][1]))
        for name, python in pythons.items()
    }
    steps: dict[str, list[Step]] = {name: [] for name in trainers}
    for _ in range(count):
        for name, trainer in trainers.items():
            steps[name].append(trainer.step())
    for trainer in trainers.values():
        trainer.end()
    return steps


def report(runs: dict[str, list[Step]]) -> int:
    """Print the table; returns 1 when a limit is missed."""
    missed, device = False, "cuda" if torch.cuda.is_available() else "cpu"
    for name, steps in runs.items():
        pairs = list(zip(steps, runs[STUDIO], strict=True))
        faster = statistics.median(step.seconds / ours.seconds for step, ours in pairs)
        by_cpu = statistics.median(step.cpu_seconds / ours.cpu_seconds for step, ours in pairs)
        apart = max(abs(step.loss / ours.loss - 1) for step, ours in pairs)
        rates = [BATCH * len(steps) / sum(spent) for spent in list(zip(*steps, strict=True))[:2]]
        print(
            f"{name:14} {rates[0]:5.2f} rows/s, {rates[1]:5.2f} by CPU second; the studio is {faster:.2f} x as fast,"
            f" {by_cpu:.2f} x by CPU time; losses differ by {apart:.2%} at most"
        )
        missed |= faster < LEAST_FASTER[device].get(name, 0) or apart > LOSS_APART
    for name, steps in runs.items():
        print(f"{name:14} losses", *(f"{step.loss:.3f}" for step in steps))
    return int(missed)


def fitting_rows(tokenizer: object, data: Path, count: int) -> list[dict[str, object]]:
    """The first rows whose prompt leaves room for an answer: no trainer then leaves one out."""
    rows = read_rows(data, 8 * count)
    encoded = zip(rows, encode_each(rows, tokenizer), strict=True)
    return [dict(row) for row, tokens in encoded if tokens.learned(LENGTH)][:count]


def write_task(folder: Path, model: str, data: Path, steps: int) -> None:
    """A task folder as the studio's training child finds it."""
    values = {"max_steps": steps, "per_device_train_batch_size": BATCH, "max_length": LENGTH, "learning_rate": 2e-4}
    recipe = SFTRecipe(model_name_or_path=model, dataset_id="rows", **values)
    folder.mkdir()
    (folder / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    (folder / "job.json").write_text(
        TrainingJob(model_location=model, data_path=str(data)).model_dump_json(), encoding="utf-8"
    )


def write_tokens(tokenizer: object, rows: list[dict[str, object]], folder: Path) -> None:
    """The rows as LLaMA-Factory keeps them once they are token ids."""
    columns = ANSWERS.encode(rows, tokenizer, LENGTH).columns  # type: ignore[arg-type]
    seen = [[1] * len(ids) for ids in columns["input_ids"]]
    DatasetDict({"train": Dataset.from_dict({**columns, "attention_mask": seen})}).save_to_disk(str(folder))


if __name__ == "__main__":
    sys.exit(main())
