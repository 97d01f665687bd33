"""Direct preference optimization (arXiv 2305.18290): TRL's DPOTrainer on pairs of answers."""

from functools import partial
from typing import Any

from trl import DPOConfig, DPOTrainer

from sage_studio.training import model_loading, tokenize
from sage_studio.training.recipes import DPORecipe
from sage_studio.training.run import Run
from sage_studio.training.trainer import SaveToTaskFolder, TrainerInputs, train_generator


class PreferenceTrainer(SaveToTaskFolder, DPOTrainer):  # type: ignore[misc]  # trl ships no types
    """A DPOTrainer for rows that are token ids already."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


def train(run: Run[DPORecipe]) -> None:
    """Train, save, and check the model. Raises `Stopped` when asked to stop, with a checkpoint written."""
    train_generator(run, tokenize.PAIRS, partial(_trainer, run))


def _trainer(run: Run[DPORecipe], inputs: TrainerInputs) -> PreferenceTrainer:
    """A trainer whose reference is the model as it begins; there is never a second model in memory.

    A new adapter changes nothing yet, so the reference is the model without it. Of an adapter to go on from, TRL keeps
    a frozen copy. For a model trained whole the reference's log-probabilities are computed before the first step.
    """
    recipe = run.recipe
    mixed = {"loss_type": [recipe.loss_type, "sft"], "loss_weights": [1.0, recipe.sft_weight]}
    config = DPOConfig(
        max_length=None,
        beta=recipe.beta,
        label_smoothing=recipe.label_smoothing,
        disable_dropout=recipe.lora_dropout == 0,
        precompute_ref_log_probs=not recipe.use_lora,
        **(mixed if recipe.sft_weight else {"loss_type": [recipe.loss_type]}),
        **inputs.config,
    )
    trainer = PreferenceTrainer(args=config, **inputs.trainer)
    if recipe.use_lora and not run.job.adapter_location:
        trainer.model.delete_adapter(model_loading.REFERENCE)
    return trainer
