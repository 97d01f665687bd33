"""The model as the one who writes: conversations in batches, sampled, each batch from a seed of its own.

Knows transformers' generation. Knows nothing of stages.
"""

import zlib
from collections.abc import Sequence
from typing import Any

import jinja2
import torch

from sage_studio.training.methods.kbalign.writing import Messages, Style, Written


class TransformersWriter:
    """Writes with a causal language model that is loaded already.

    Args:
        batch_size: conversations continued at once; a batch that does not fit into memory is halved.
        seed: the run's; mixed with that of each call.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_size: int, seed: int) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._seed = seed
        self.context: int = getattr(model.config, "max_position_embeddings", None) or 1 << 30

    def write(self, prompts: Sequence[Messages], style: Style, seed: str) -> list[Written]:
        """Continue each conversation, those of like length together."""
        torch.manual_seed(zlib.crc32(f"{self._seed} {seed}".encode()))
        self._model.eval()
        written: dict[int, Written] = {}
        rendered: dict[int, list[int]] = {}
        for at, prompt in enumerate(prompts):
            try:
                rendered[at] = self._tokenizer(self._render(prompt), add_special_tokens=False)["input_ids"]
            except jinja2.TemplateError as error:
                written[at] = Written("", error=f"the chat template refuses it: {error}")
        order = sorted(rendered, key=lambda at: -len(rendered[at]))
        for start in range(0, len(order), self._batch_size):
            places = order[start : start + self._batch_size]
            written |= zip(places, self._tried([rendered[at] for at in places], style), strict=True)
        return [written[at] for at in range(len(prompts))]

    def _render(self, prompt: Messages) -> str:
        """As the template has it; where it knows no system turn, that stands before the first of the user's."""
        try:
            return self._with_template(prompt)
        except jinja2.TemplateError:
            if prompt[0]["role"] != "system":
                raise
            system, first, *rest = prompt
            return self._with_template([{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest])

    def _with_template(self, prompt: Messages) -> str:
        return str(self._tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True))

    def _tried(self, batch: Sequence[list[int]], style: Style) -> list[Written]:
        """One batch, or its halves where torch fails; a single conversation that fails says why."""
        try:
            return self._generated(batch, style)
        except RuntimeError as error:
            if len(batch) == 1:
                return [Written("", error=str(error).partition("\n")[0][:300] or type(error).__name__)]
        half = len(batch) // 2
        return [*self._tried(batch[:half], style), *self._tried(batch[half:], style)]

    def _generated(self, batch: Sequence[list[int]], style: Style) -> list[Written]:
        room = self.context - style.max_tokens
        if len(batch[0]) > room:
            raise RuntimeError(f"{len(batch[0])} tokens are more than the model reads ({room}); lower chunk_size")
        padded = self._tokenizer.pad({"input_ids": list(batch)}, padding_side="left", return_tensors="pt")
        padded = padded.to(self._model.device)
        sampled = {"do_sample": True, "temperature": style.temperature, "top_p": style.top_p, "top_k": 0}
        plain = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=padded["input_ids"],
                attention_mask=padded["attention_mask"],
                max_new_tokens=style.max_tokens,
                pad_token_id=self._tokenizer.pad_token_id,
                use_cache=True,
                **(sampled if style.temperature > 0 else plain),
            )
        new = output[:, padded["input_ids"].shape[1] :]
        ends = self._ends()
        return [
            Written(self._tokenizer.decode(row, skip_special_tokens=True).strip(), bool(torch.isin(row, ends).any()))
            for row in new
        ]

    def _ends(self) -> Any:
        """The ids that end an answer."""
        known = self._model.generation_config.eos_token_id
        ids = known if isinstance(known, list) else [known]
        return torch.tensor(
            [token for token in (*ids, self._tokenizer.eos_token_id) if token is not None], device=self._model.device
        )
