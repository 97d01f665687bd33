"""Supervised fine-tuning: TRL's SFTTrainer on conversational rows, with a LoRA adapter or the whole model.

Knows the loss and how the trainer is built. Knows nothing of what surrounds it, which all methods share
(`sage_studio.training.tuning`).
"""

from functools import partial
from typing import Any

import torch.nn.functional as F
from trl import SFTConfig, SFTTrainer

from sage_studio.training import rows
from sage_studio.training.packing import PackCollator, pack
from sage_studio.training.recipes import SFTRecipe
from sage_studio.training.run import Run
from sage_studio.training.tuning import KeptPlain, Material, tune


class AnswerTrainer(KeptPlain, SFTTrainer):  # type: ignore[misc]  # trl ships no types
    """An SFTTrainer that, on a CPU, computes logits for the answers' tokens only.

    TRL's own head saves memory by chunks and also counts entropy and accuracy: right on a card, half the time on a CPU.
    """

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The mean loss per answer token of the whole step, like the base class."""
        if not self.args.use_cpu:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["labels"][:, 1:]
        places = (labels != rows.IGNORED).any(dim=0).nonzero().flatten()
        asked = {name: value for name, value in inputs.items() if name != "labels"}
        outputs = model(**asked, logits_to_keep=places, use_cache=False)
        labels = labels[:, places]
        learned = labels != rows.IGNORED
        loss = F.cross_entropy(outputs.logits[learned].float(), labels[learned], reduction="sum")
        loss = loss / (learned.sum() if num_items_in_batch is None else num_items_in_batch)
        return (loss, outputs) if return_outputs else loss


def train(run: Run[SFTRecipe]) -> None:
    """Train, save, and check the model. Raises `Stopped` when asked to stop, with a checkpoint written."""
    recipe = run.recipe
    arrange = partial(pack, max_length=recipe.max_length) if recipe.packing else None
    tune(run, rows.answered, rows.encode, partial(trainer_of, packed=recipe.packing), arrange)


def trainer_of(material: Material, packed: bool = False) -> AnswerTrainer:
    """The trainer of one run."""
    config = SFTConfig(max_length=None, dataset_kwargs={"skip_prepare_dataset": True}, **material.config)
    pad = material.trainer["processing_class"].pad_token_id
    collator = PackCollator(pad, return_position_ids=True) if packed else None
    return AnswerTrainer(args=config, data_collator=collator, **material.trainer)
