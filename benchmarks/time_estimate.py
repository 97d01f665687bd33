"""The time estimate against real trainings on this machine.

    python -m benchmarks.time_estimate MODEL_FOLDER [--seconds 120]

MODEL_FOLDER is a model that writes text, such as the unpacked built-in one. The probe measures its pace, as the studio
has it done before the first run. Then it is trained in some settings, each in a process as the studio starts it, on
rows of words whose lengths differ; the estimate from the probe alone is set against the real time, and so is the
estimate that earlier runs (those above in the table) correct. Each run is made of so many rows as the probe says are
trained on in ``--seconds``.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sage_studio.catalog import ModelRef
from sage_studio.hardware import detect_hardware
from sage_studio.preflight import rows_left_out
from sage_studio.training.duration import (
    estimate_step_time,
    fixed_seconds,
    loop_seconds,
    measure_in_child,
    operations_per_second,
    work_of,
)
from sage_studio.training.environment import cpu_has_bf16
from sage_studio.training.memory import TraceRequest
from sage_studio.training.progress import JOB, RECIPE, Result, TrainingJob, read_result
from sage_studio.training.recipes import SFTRecipe, dump_recipe

PROJECT = Path(__file__).resolve().parent.parent
WORDS = ("stream", "window", "operator", "source", "sink", "batch", "record", "state", "key", "time", "join", "filter")
SETTINGS: dict[str, dict[str, Any]] = {
    "batch 2, 256 tokens": {"per_device_train_batch_size": 2, "max_length": 256},
    "batch 8, 96 tokens": {"per_device_train_batch_size": 8, "max_length": 96},
    "batch 1 x 4, 512 tokens": {"gradient_accumulation_steps": 4, "max_length": 512},
    "packed, 512 tokens": {"packing": True, "max_length": 512},
    "whole model, 128 tokens": {"use_lora": False, "max_length": 128, "learning_rate": 1e-5},
}
MOST_ROWS = 2000


def rows(path: Path, longest: int) -> None:
    """Rows of 10 to ``longest`` words, short ones more often."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(MOST_ROWS):
            words = " ".join(draw.choices(WORDS, k=10 + int((longest - 10) * draw.random() ** 2)))
            asked = [{"role": "user", "content": f"Tell me about item {number}."}]
            said = [{"role": "assistant", "content": words}]
            file.write(json.dumps({"prompt": asked, "completion": said, "origin": {"file": "rows"}}) + "\n")


def train(model: Path, folder: Path, data: Path, recipe: SFTRecipe) -> tuple[float, Result]:
    """Seconds of a real training from the start of its process to its end, and its result."""
    folder.mkdir()
    (folder / RECIPE).write_text(dump_recipe(recipe))
    (folder / JOB).write_text(TrainingJob(model_location=str(model), data_path=str(data)).model_dump_json())
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "sage_studio.training", str(folder)],
        cwd=PROJECT,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds, result = time.monotonic() - began, read_result(folder)
    if result is None or result.status != "completed":
        raise SystemExit(done.stdout + done.stderr)
    shutil.rmtree(folder)
    return seconds, result


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--only", default="", help="settings whose name holds this")
    options = parser.parse_args()
    model = options.model.resolve()
    on_gpu = detect_hardware().has_gpu
    reference = ModelRef(model.name, str(model), trust_remote_code=False)
    size = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    parameters = size // 2
    factors: list[float] = []
    print("| setting | rows | rough | probe | by runs above | real | probe off | by runs off | beside the loop |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as home:
        for name, values in SETTINGS.items():
            if options.only not in name:
                continue
            data = Path(home) / "rows.jsonl"
            rows(data, values["max_length"])
            asked = {"model_name_or_path": model.name, "dataset_id": "d", "num_train_epochs": 1, **values}
            recipe = SFTRecipe(**asked)
            lora = {"lora_dropout": recipe.lora_dropout} if recipe.use_lora else {"use_lora": False}
            dtype = "bfloat16" if on_gpu or cpu_has_bf16() else "float32"
            pace = measure_in_child(TraceRequest(type="sft", location=str(model), dtype=dtype, on_gpu=on_gpu, **lora))
            lengths = rows_left_out(recipe, reference, data).lengths

            def loop(asked: SFTRecipe, pace: Any = pace, lengths: tuple[int, ...] = lengths) -> float:
                return loop_seconds(asked.model_dump(), work_of(asked.model_dump(), lengths, MOST_ROWS), pace)

            used = min(MOST_ROWS, max(16, round(MOST_ROWS * options.seconds / loop(recipe))))
            recipe = recipe.model_copy(update={"max_samples": used})
            guess = loop(recipe)
            slow = estimate_step_time(parameters, recipe.use_lora, operations_per_second())
            rough = fixed_seconds(parameters) + loop_seconds(
                recipe.model_dump(), work_of(recipe.model_dump(), lengths, MOST_ROWS), slow
            )
            corrected = fixed_seconds(parameters) + statistics.median(factors) * guess if factors else None
            seconds, result = train(model, Path(home) / "run", data, recipe)
            factors.append(result.details["train_seconds"] / guess)
            probed = fixed_seconds(parameters) + guess
            by_runs = f"{corrected:.0f} s | {seconds:.0f} s" if corrected else f"– | {seconds:.0f} s"
            off = f"{corrected / seconds - 1:+.0%}" if corrected else "–"
            beside = seconds - result.details["train_seconds"]
            print(
                f"| {name} | {used} | {rough:.0f} s | {probed:.0f} s | {by_runs} |"
                f" {probed / seconds - 1:+.0%} | {off} | {beside:.0f} s |",
                flush=True,
            )


if __name__ == "__main__":
    main()
