"""The studio's SFT against a bare TRL script, same rows: ``python -m benchmarks.training_speed MODEL DATA``.

MODEL is a model folder, DATA a ``data.jsonl`` of the studio. Prints seconds per step and rows per second of both and,
for the studio, the seconds from the start of the process to the end of the first step. Each has its own process.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from sage_studio.training.progress import Job, read_events
from sage_studio.training.recipe import dump_recipe
from sage_studio.training.recipes import SFTRecipe

BARE = """
import sys, time
from datasets import load_dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer
from transformers import TrainerCallback
model, data, steps, out = sys.argv[1:]
rows = load_dataset("json", data_files=data, split="train").select_columns(["prompt", "completion"])
class Clock(TrainerCallback):
    times = []
    def on_step_end(self, *_, **__): self.times.append(time.monotonic())
SFTTrainer(
    model=model, train_dataset=rows, callbacks=[Clock()],
    args=SFTConfig(out, max_steps=int(steps), per_device_train_batch_size=4, max_length=256, learning_rate=2e-4,
        gradient_checkpointing=False, use_cpu=True, seed=42, save_strategy="no", disable_tqdm=True,
        lr_scheduler_type="cosine", model_init_kwargs={"dtype": "bfloat16"}),
    peft_config=LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM"),
).train()
print("STEPS", *Clock.times)
"""


def main() -> None:
    """Run both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        first, studio = run_studio(Path(folder), options.model, options.data, options.steps)
        bare = run_bare(Path(folder), options.model, options.data, options.steps)
    print(f"studio   {studio:.2f} s/step   {4 / studio:.2f} rows/s   first step done after {first:.1f} s")
    print(f"bare TRL {bare:.2f} s/step   {4 / bare:.2f} rows/s   ({bare / studio:.2f} x)")


def run_studio(folder: Path, model: str, data: str, steps: int) -> tuple[float, float]:
    """Seconds until the first step was done, and the median seconds per step after it."""
    recipe = SFTRecipe(
        model_name_or_path=model,
        dataset_id="rows",
        max_steps=steps,
        per_device_train_batch_size=4,
        max_length=256,
        learning_rate=2e-4,
    )
    (folder / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    (folder / "job.json").write_text(Job(model_location=model, data_path=data).model_dump_json(), encoding="utf-8")
    began = time.time()
    subprocess.run([sys.executable, "-m", "sage_studio.training", str(folder)], check=True, stdout=subprocess.DEVNULL)
    times = [event.time for event in read_events(folder)[0] if event.loss is not None]
    return times[0] - began, median_gap(times)


def run_bare(folder: Path, model: str, data: str, steps: int) -> float:
    """Median seconds per step after the first."""
    plain = folder / "plain.jsonl"  # TRL wants the two columns alone to be of one type in every row
    with open(data, encoding="utf-8") as rows, plain.open("w", encoding="utf-8") as out:
        out.writelines(
            json.dumps({key: json.loads(row)[key] for key in ("prompt", "completion")}) + "\n" for row in rows
        )
    command = [sys.executable, "-c", BARE, model, str(plain), str(steps), str(folder / "bare")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return median_gap([float(word) for word in done.stdout.rpartition("STEPS")[2].split()])


def median_gap(times: list[float]) -> float:
    """The median difference of neighbours."""
    gaps = sorted(after - before for before, after in pairwise(times))
    return gaps[len(gaps) // 2]


if __name__ == "__main__":
    main()
