"""Text generation for the stages, by a transformers model."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jinja2
import torch

Messages = list[dict[str, str]]
"""A conversation whose next turn is to be generated."""


@dataclass(frozen=True, slots=True)
class DecodingParams:
    """How to sample. ``temperature`` 0 is greedy decoding."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0


@dataclass(frozen=True, slots=True)
class Completion:
    """What was generated.

    Attributes:
        finished: it ended by itself, not at ``max_tokens``.
        error: why nothing could be generated; empty if something was.
    """

    text: str
    finished: bool = True
    error: str = ""


class Generator(Protocol):
    """Whatever completes conversations: a model, or a script in the tests.

    Attributes:
        context: context length in tokens, prompt and completion together.
    """

    context: int

    def generate(self, prompts: Sequence[Messages], params: DecodingParams, seed: str) -> list[Completion]:
        """Complete each conversation; one that fails has its ``error`` and does not affect the others.

        Args:
            seed: the same prompts, parameters and seed give the same completions.
        """
        ...


def conversation(system: str, *turns: str) -> Messages:
    """A conversation of a system prompt, if any, and turns of the user and the assistant, the last one the user's."""
    roles = ("user", "assistant")
    messages = [{"role": roles[at % 2], "content": turn} for at, turn in enumerate(turns)]
    return [{"role": "system", "content": system}, *messages] if system else messages


class TransformersGenerator:
    """Generates with a causal language model that is already loaded.

    Args:
        batch_size: conversations per batch; a batch that does not fit into memory is halved.
        seed: the run's; combined with that of each call.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_size: int, seed: int) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._seed = seed
        self.context: int = getattr(model.config, "max_position_embeddings", None) or 1 << 30

    def generate(self, prompts: Sequence[Messages], params: DecodingParams, seed: str) -> list[Completion]:
        """Complete each conversation, those of similar length in one batch."""
        torch.manual_seed(zlib.crc32(f"{self._seed} {seed}".encode()))
        self._model.eval()
        completions: dict[int, Completion] = {}
        encoded: dict[int, list[int]] = {}
        for at, prompt in enumerate(prompts):
            try:
                encoded[at] = self._tokenizer(self._render(prompt), add_special_tokens=False)["input_ids"]
            except jinja2.TemplateError as error:
                completions[at] = Completion("", error=f"the chat template refuses it: {error}")
        order = sorted(encoded, key=lambda at: -len(encoded[at]))
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            completions |= zip(batch, self._generate_or_halve([encoded[at] for at in batch], params), strict=True)
        return [completions[at] for at in range(len(prompts))]

    def _render(self, prompt: Messages) -> str:
        """The prompt in the chat template; without support for a system turn, that goes into the first user turn."""
        try:
            return self._apply_template(prompt)
        except jinja2.TemplateError:
            if prompt[0]["role"] != "system":
                raise
            system, first, *rest = prompt
            return self._apply_template([{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest])

    def _apply_template(self, prompt: Messages) -> str:
        return str(self._tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True))

    def _generate_or_halve(self, batch: Sequence[list[int]], params: DecodingParams) -> list[Completion]:
        """One batch, or its halves where torch fails; a single conversation that fails says why."""
        try:
            return self._generate_batch(batch, params)
        except RuntimeError as error:
            if len(batch) == 1:
                return [Completion("", error=str(error).partition("\n")[0][:300] or type(error).__name__)]
        half = len(batch) // 2
        return [*self._generate_or_halve(batch[:half], params), *self._generate_or_halve(batch[half:], params)]

    def _generate_batch(self, batch: Sequence[list[int]], params: DecodingParams) -> list[Completion]:
        max_prompt = self.context - params.max_tokens
        if len(batch[0]) > max_prompt:
            raise RuntimeError(
                f"a prompt of {len(batch[0])} tokens exceeds the model's context ({max_prompt}); lower chunk_size"
            )
        padded = self._tokenizer.pad({"input_ids": list(batch)}, padding_side="left", return_tensors="pt")
        padded = padded.to(self._model.device)
        sampling = {"do_sample": True, "temperature": params.temperature, "top_p": params.top_p, "top_k": 0}
        greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=padded["input_ids"],
                attention_mask=padded["attention_mask"],
                max_new_tokens=params.max_tokens,
                pad_token_id=self._tokenizer.pad_token_id,
                use_cache=True,
                **(sampling if params.temperature > 0 else greedy),
            )
        new = output[:, padded["input_ids"].shape[1] :]
        ends = self._eos_ids()
        return [
            Completion(self._tokenizer.decode(row, skip_special_tokens=True).strip(), bool(torch.isin(row, ends).any()))
            for row in new
        ]

    def _eos_ids(self) -> Any:
        known = self._model.generation_config.eos_token_id
        ids = known if isinstance(known, list) else [known]
        return torch.tensor(
            [token for token in (*ids, self._tokenizer.eos_token_id) if token is not None], device=self._model.device
        )
