"""What every trainer shares: the arguments that the recipe decides, and a training from the newest checkpoint on.

Knows transformers' trainers. Knows nothing of any one method.
"""

import math
import os
import time
from typing import Any

import torch

from sage_studio.training import checkpoints
from sage_studio.training.progress import Phase
from sage_studio.training.recipes import Recipe
from sage_studio.training.run import Run
from sage_studio.training.stopping import Stopped

SAME = {
    "num_train_epochs",
    "per_device_train_batch_size",
    "learning_rate",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "lr_scheduler_type",
    "weight_decay",
    "max_grad_norm",
    "logging_steps",
    "save_steps",
    "save_total_limit",
    "seed",
}
"""Fields of the recipe that the trainer knows under the same name."""


def arguments_of(run: Run[Any], row_count: int, dtype: Any) -> dict[str, Any]:
    """The arguments that are the same for every kind of trainer.

    Args:
        row_count: rows that are trained on.
        dtype: torch dtype to compute in.
    """
    recipe: Recipe = run.recipe
    return {
        "output_dir": str(run.checkpoints),
        "max_steps": recipe.max_steps or -1,
        "warmup_steps": int(steps_of(recipe, row_count) * recipe.warmup_ratio),
        "bf16": dtype == torch.bfloat16,
        "fp16": dtype == torch.float16,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "logging_nan_inf_filter": False,
        **({"optim": "adamw_8bit"} if recipe.optimizer == "adamw_8bit" else {}),
        "disable_tqdm": True,
        "report_to": "none",
        **recipe.model_dump(include=SAME),
    }


def steps_of(recipe: Recipe, row_count: int) -> int:
    """Optimizer steps of a whole run; on several GPUs each takes a batch of its own."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    batches = math.ceil(row_count / (recipe.per_device_train_batch_size * processes))
    by_epochs = math.ceil(recipe.num_train_epochs * math.ceil(batches / recipe.gradient_accumulation_steps))
    return recipe.max_steps or by_epochs


def fit(run: Run[Any], trainer: Any) -> None:
    """Train, from the newest whole checkpoint on if resumed.

    Raises:
        StorageFull: there is no room for the checkpoints; nothing was trained.
        Stopped: with a checkpoint written.
    """
    newest = checkpoints.newest_checkpoint(run.checkpoints) if run.job.resume else None
    for path in checkpoints.remove_broken(run.checkpoints):
        print(f"{path.name} was cut off while it was written, and is left out")
    if newest is not None:
        print(f"continuing from {newest.name}")
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    if trainer.args.fp16:
        make_scalable(trainer.model)
    weights = (weight for weight in trainer.model.parameters() if weight.requires_grad)
    trained = sum(weight.numel() * weight.element_size() for weight in weights)
    checkpoints.check_room(run.checkpoints, trained, run.recipe.save_total_limit)
    run.stop.wait()
    run.progress.phase(Phase.TRAINING)
    began = time.monotonic()
    outcome = trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    run.tally.train_loss = outcome.training_loss
    run.tally.details["train_seconds"] = round(time.monotonic() - began, 3)
    if run.stop.requested and run.tally.steps < run.tally.total_steps:
        raise Stopped


def make_scalable(model: Any) -> None:
    """Cast what is trained to fp32, as fp16 training needs it; frozen weights stay as they are.

    TRL casts the adapter of a quantized model to bf16, which CUDA's gradient scaler has no kernel for, and the scaler
    refuses gradients in fp16. Called before the optimizer is made, for it takes its state's type from the parameters.
    """
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            parameter.data = parameter.data.float()
