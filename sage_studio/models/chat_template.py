"""A tokenizer and its chat template without transformers, so that the web process shows what the trainer will see."""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sage_studio import hub
from sage_studio.catalog import ModelRef
from sage_studio.errors import InvalidModel
from sage_studio.models.model_folder import CHAT_TEMPLATE, TOKENIZER, TOKENIZER_CONFIG, read_chat_template, snapshot
from sage_studio.text import Text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL_TOKENS = "special_tokens_map.json"
FILES = (TOKENIZER, TOKENIZER_CONFIG, CHAT_TEMPLATE, SPECIAL_TOKENS)
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class ChatTokenizer:
    """Renders conversations and counts tokens, as `sage_studio.training.tokenize` expects of a tokenizer.

    Args:
        folder: of a model; it must hold a ``tokenizer.json``.

    Raises:
        InvalidModel: there is none, or it or its template cannot be read.

    Example:
        >>> tokenizer = ChatTokenizer(Path("SmolLM2-135M-Instruct"))  # doctest: +SKIP
        >>> tokenizer(["Hello"])["input_ids"]  # doctest: +SKIP
        [[19556]]
    """

    def __init__(self, folder: Path) -> None:
        self.chat_template: str | None
        try:
            self._tokenizer = _load(folder / TOKENIZER)
            self._special = _special_tokens({**_json(folder / SPECIAL_TOKENS), **_json(folder / TOKENIZER_CONFIG)})
            self.chat_template = read_chat_template(str(folder))
            self._template = _environment().from_string(self.chat_template or "")
        except (OSError, ValueError, TemplateError) as error:
            raise InvalidModel(
                Text("The tokenizer in {folder} cannot be shown here: {error}", folder=folder, error=error),
                Text("Save it as a fast tokenizer (tokenizer.json), or choose another model; training may still work."),
            ) from error

    def apply_chat_template(
        self, messages: list[dict[str, str]], *, tokenize: bool = False, add_generation_prompt: bool = False
    ) -> str:
        """A conversation as the model reads it. Raises ``jinja2.TemplateError`` where the template refuses it."""
        assert not tokenize, "ids are made of the rendered text"
        return self._template.render(
            messages=messages,
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **self._special,
        )

    def __call__(self, texts: Sequence[str], **_: Any) -> dict[str, list[list[int]]]:
        """``input_ids``, one list a text, without any special token that the text does not write out."""
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return {"input_ids": [encoding.ids for encoding in encoded]}

    def pieces(self, ids: Sequence[int]) -> Iterator[tuple[str, int]]:
        """The ids as readable pieces with how many ids each takes; a character that spans ids stays whole."""
        from tokenizers.decoders import DecodeStream

        stream, waiting = DecodeStream(skip_special_tokens=False), 0
        for each in ids:
            waiting += 1
            text = stream.step(self._tokenizer, each)
            if text is not None:
                yield text, waiting
                waiting = 0
        if waiting:
            yield "\ufffd", waiting


def tokenizer_of(model: ModelRef) -> ChatTokenizer:
    """The tokenizer of a model, kept in memory until its files change; of a hub model its small files are fetched.

    Raises:
        InvalidModel: it cannot be read.
        HubUnavailable: the hub does not answer, and the files are not in its local cache.
    """
    folder = Path(model.location) if model.is_local else _fetched(model.location)
    changed = max((path.stat().st_mtime for path in map(folder.joinpath, FILES) if path.is_file()), default=0.0)
    return _kept(folder, changed)


@lru_cache(maxsize=4)
def _kept(folder: Path, _changed: float) -> ChatTokenizer:
    return ChatTokenizer(folder)


def _fetched(name: str) -> Path:
    from huggingface_hub import snapshot_download

    here = snapshot(name)
    if here is not None:
        return here
    with hub.asking(name):
        return Path(snapshot_download(name, allow_patterns=list(FILES)))


def _load(path: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    if not path.is_file():
        raise FileNotFoundError(f"there is no {path.name}")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exceptions for a file that is none
        raise ValueError(str(error)) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _json(path: Path) -> dict[str, Any]:
    values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return values if isinstance(values, dict) else {}


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    given = {name: config[name] for name in NAMED if config.get(name)}
    special = {name: str(value["content"] if isinstance(value, dict) else value) for name, value in given.items()}
    if "eos_token" in special:
        special.setdefault("pad_token", special["eos_token"])  # as the trainer does
    return special


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    """As chat templates expect it: the blocks trimmed, ``break`` and ``generation`` known, JSON left as it is."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda shape: datetime.now().strftime(shape)
    return environment


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


class _Generation(Extension):
    """``{% generation %}`` marks what the assistant says; for rendering it is as if it were not there."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The block's inside."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
