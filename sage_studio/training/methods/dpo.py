"""Direct preference optimization (arXiv 2305.18290): TRL's DPOTrainer on pairs of answers.

Knows the reference and how the trainer is built. Knows nothing of what surrounds it, which all methods share
(`sage_studio.training.tuning`).
"""

from functools import partial
from typing import Any

from trl import DPOConfig, DPOTrainer

from sage_studio.training import base_model, pairs
from sage_studio.training.recipes import DPORecipe
from sage_studio.training.run import Run
from sage_studio.training.tuning import KeptPlain, Material, tune


class PairTrainer(KeptPlain, DPOTrainer):  # type: ignore[misc]  # trl ships no types
    """A DPOTrainer for rows that are token ids already."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


def train(run: Run[DPORecipe]) -> None:
    """Train, save, and check the model. Raises `Stopped` when asked to stop, with a checkpoint written."""
    tune(run, pairs.paired, pairs.encode, partial(_trainer, run))


def _trainer(run: Run[DPORecipe], material: Material) -> PairTrainer:
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
        **material.config,
    )
    trainer = PairTrainer(args=config, **material.trainer)
    if recipe.use_lora and not run.job.adapter_location:
        trainer.model.delete_adapter(base_model.REFERENCE)
    return trainer
