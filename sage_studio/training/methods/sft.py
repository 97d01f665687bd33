"""Supervised fine-tuning: TRL's SFTTrainer on conversations, with LoRA or full fine-tuning."""

from functools import partial
from typing import Any

import torch.nn.functional as F
from datasets import Dataset
from trl import SFTConfig, SFTTrainer, pack_dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from sage_studio.training import model_loading, tokenize
from sage_studio.training.recipes import SFTRecipe
from sage_studio.training.run import Run
from sage_studio.training.trainer import SaveToTaskFolder, TrainerInputs, train_generator


class AnswerTrainer(SaveToTaskFolder, SFTTrainer):  # type: ignore[misc]  # trl ships no types
    """An SFTTrainer that, on a CPU, computes logits for the answers' tokens only.

    TRL's own head saves memory by chunks and also counts entropy and accuracy: right on a GPU, half the time on a CPU.
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
        places = (labels != tokenize.IGNORED).any(dim=0).nonzero().flatten()
        asked = {name: value for name, value in inputs.items() if name != "labels"}
        if model_loading.keeps_logits(self.accelerator.unwrap_model(model)):
            outputs = model(**asked, logits_to_keep=places, use_cache=False)
            logits = outputs.logits
        else:
            outputs = model(**asked, use_cache=False)
            logits = outputs.logits[:, places]
        labels = labels[:, places]
        learned = labels != tokenize.IGNORED
        loss = F.cross_entropy(logits[learned].float(), labels[learned], reduction="sum")
        loss = loss / (learned.sum() if num_items_in_batch is None else num_items_in_batch)
        return (loss, outputs) if return_outputs else loss


def pack(dataset: Dataset, max_length: int) -> Dataset:
    """Rows of ``input_ids`` and ``labels`` put together, best fit first, into sequences of at most ``max_length``."""
    return pack_dataset(dataset, max_length, strategy="bfd")


class PackCollator(DataCollatorForLanguageModeling):  # type: ignore[misc]  # trl ships no types
    """Batches of packed sequences: positions begin anew with every row, and there is no attention mask.

    From such positions transformers makes a mask in which each row sees itself alone, whatever the kind of attention.
    """

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """``input_ids``, ``labels`` and ``position_ids`` of shape (sequences, longest)."""
        batch: dict[str, Any] = super().torch_call(examples)
        del batch["attention_mask"]
        batch["labels"][batch["position_ids"] == 0] = tokenize.IGNORED  # nothing before it in its row
        return batch


def train(run: Run[SFTRecipe]) -> None:
    """Train, save, and check the model. Raises `Stopped` when asked to stop, with a checkpoint written."""
    recipe = run.recipe
    arrange = partial(pack, max_length=recipe.max_length) if recipe.packing else None
    train_generator(run, tokenize.ANSWERS, partial(trainer_of, packed=recipe.packing), arrange)


def trainer_of(inputs: TrainerInputs, packed: bool = False) -> AnswerTrainer:
    """The trainer of one run."""
    config = SFTConfig(max_length=None, dataset_kwargs={"skip_prepare_dataset": True}, **inputs.config)
    pad = inputs.trainer["processing_class"].pad_token_id
    collator = PackCollator(pad, return_position_ids=True) if packed else None
    return AnswerTrainer(args=config, data_collator=collator, **inputs.trainer)
