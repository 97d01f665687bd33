"""Several short rows in one sequence, so that little of a batch is padding; none of them sees another.

Knows how positions tell one row from the next. Knows nothing of recipes or models.
"""

from typing import Any

from datasets import Dataset
from trl import pack_dataset
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from sage_studio.training.rows import IGNORED


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
        batch["labels"][batch["position_ids"] == 0] = IGNORED  # nothing before it in its row
        return batch
