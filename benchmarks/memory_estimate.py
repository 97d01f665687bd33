"""The memory estimate against the measured peak of real trainings: three sizes of model, two lengths.

    python -m benchmarks.memory_estimate TOKENIZER_FOLDER [--steps 3] [--whole]

TOKENIZER_FOLDER is a model folder of the Llama kind, such as the built-in model's; models of three sizes with random
weights are made after its config. Each run is a training process as the studio starts it, whose rows are all as long as
``max_length``. On the CPU the peak is the process's VmHWM; on a GPU, where there is one, what PyTorch reserved and
what the driver takes for a process (measured once), and each run is made with a plain and with a 4-bit base. Both
figures are also shown above what a process takes before it has loaded anything, for that part is easy to guess. With
``--whole`` there is no adapter: all weights are trained.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

from sage_studio.hardware import detect_hardware
from sage_studio.training.environment import cpu_has_bf16
from sage_studio.training.memory import TraceRequest, estimate, trace_in_child
from sage_studio.training.progress import JOB, RECIPE, TrainingJob, read_result
from sage_studio.training.recipes import SFTRecipe, dump_recipe

PROJECT = Path(__file__).resolve().parent.parent
SIZES = {
    "31 M": {"hidden_size": 320, "intermediate_size": 864, "num_hidden_layers": 12, "heads": (5, 5)},
    "135 M": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "heads": (9, 3)},
    "362 M": {"hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32, "heads": (15, 5)},
}
SIZES_ON_A_GPU = {
    "135 M": SIZES["135 M"],
    "1.1 B": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "heads": (32, 8)},
    "2.9 B": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "heads": (48, 8)},
}
LENGTHS = (256, 1024)
MAKE = """
import sys, json, torch
from transformers import LlamaConfig, LlamaForCausalLM
config = LlamaConfig.from_pretrained(sys.argv[1], **json.loads(sys.argv[3]))
with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
    model = LlamaForCausalLM(config)
model.to(torch.bfloat16).save_pretrained(sys.argv[2])
"""
CONTEXT = """
import torch
torch.ones(1, device="cuda").sum().item()
free, total = torch.cuda.mem_get_info()
print(total - free - torch.cuda.memory_reserved())
"""


def make_model(tokenizer: Path, folder: Path, size: dict[str, object]) -> None:
    """A model with random weights and a real tokenizer."""
    heads, key_value_heads = size["heads"]
    changes = {name: value for name, value in size.items() if name != "heads"}
    changes |= {"num_attention_heads": heads, "num_key_value_heads": key_value_heads, "head_dim": 64}
    subprocess.run([sys.executable, "-c", MAKE, str(tokenizer), str(folder), json.dumps(changes)], check=True)
    for file in (*tokenizer.glob("*token*"), *tokenizer.glob("chat_template*"), *tokenizer.glob("*.txt")):
        shutil.copy(file, folder)


def run(model: Path, home: Path, recipe: SFTRecipe) -> float:
    """Peak of a real training, in bytes; on a GPU without what the driver takes."""
    folder = home / f"task-{model.name}-{recipe.max_length}"
    folder.mkdir()
    answer = " ".join(f"word {number}" for number in range(recipe.max_length))
    row = {"prompt": [{"role": "user", "content": "Count."}], "completion": [{"role": "assistant", "content": answer}]}
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps({**row, "origin": {"file": "rows"}}) + "\n" for _ in range(recipe.max_steps)))
    (folder / RECIPE).write_text(dump_recipe(recipe))
    (folder / JOB).write_text(TrainingJob(model_location=str(model), data_path=str(data)).model_dump_json())
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, "-m", "sage_studio.training", str(folder)],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
    )
    result = read_result(folder)
    if result is None or result.peak_memory_gb is None:
        raise SystemExit(done.stdout + done.stderr)
    shutil.rmtree(folder)
    return result.peak_memory_gb * 2**30


def driver_takes() -> float:
    """Bytes of a GPU that one process takes for CUDA itself, while nothing else runs there."""
    return float(subprocess.run([sys.executable, "-c", CONTEXT], check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--whole", action="store_true")
    options = parser.parse_args()
    on_gpu = detect_hardware().has_gpu
    device = "cuda" if on_gpu else "cpu"
    extra = driver_takes() if on_gpu else 0.0
    if on_gpu:
        print(f"the driver takes {extra / 2**30:.2f} GB")
    print(f"{'model':>6} {'base':>5} {'length':>7} {'estimate':>9} {'measured':>9} {'off':>7} {'above the start':>16}")
    how = {"use_lora": False} if options.whole else {}
    with tempfile.TemporaryDirectory() as home:
        for name, size in (SIZES_ON_A_GPU if on_gpu else SIZES).items():
            model = Path(home) / name.replace(" ", "")
            make_model(options.tokenizer, model, size)
            dtype = "bfloat16" if on_gpu or cpu_has_bf16() else "float32"
            known = {"lora_dropout": 0.0 if options.whole else 0.05, "dtype": dtype, "on_gpu": on_gpu, **how}
            trace = trace_in_child(TraceRequest(type="sft", location=str(model), **known))
            bases = ("none", "4bit") if on_gpu and not options.whole else ("none",)
            for length, bits in product(LENGTHS, bases):
                values = {"max_length": length, "max_steps": options.steps, "quantization": bits, **how}
                recipe = SFTRecipe(model_name_or_path=name, dataset_id="d", **values)
                guess = estimate(recipe.model_dump(), trace, device, length)
                peak = run(model, Path(home), recipe) + extra
                above = (guess.total - guess.context) / (peak - (extra or guess.context)) - 1
                print(
                    f"{name:>6} {bits:>5} {length:>7} {guess.total / 2**30:>6.2f} GB {peak / 2**30:>6.2f} GB"
                    f" {guess.total / peak - 1:>+7.1%} {above:>+16.1%}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
