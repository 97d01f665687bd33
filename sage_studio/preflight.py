"""Checks a run before its task is made, from files alone.

Looks at model, target modules, tokenizer, rows and output folder.

No model is loaded, and nothing is asked of the hub; what only the trainer can find out is left to it.
"""

from collections.abc import Callable
from pathlib import Path

from sage_studio.catalog import ModelRef
from sage_studio.data.dataset import Dataset
from sage_studio.errors import Conflict, InvalidDataset, InvalidModel, InvalidName, InvalidRecipe, NotFound
from sage_studio.models.chat_template import tokenizer_of
from sage_studio.models.model_folder import TOKENIZER, indexed_weights
from sage_studio.safetensors_file import read_tensors
from sage_studio.serving.adapter_compat import check_adapter
from sage_studio.tasks.store import TaskStore
from sage_studio.text import Text
from sage_studio.training.recipes import Recipe, methods_for
from sage_studio.training.recipes.methods import GenerativeRecipe
from sage_studio.training.save import OutputNotEmpty, check_output
from sage_studio.training.tokenize import check_template
from sage_studio.training.truncation import (
    CHECKED,
    SkippedRows,
    check_first_rows,
    check_many_rows,
    check_retrieval_rows,
    find_skipped_rows,
)

ALL_LINEAR = "all-linear"
SMALL, SMALL_PACKED, SMALL_FILES = 256 << 10, 16 << 10, 100
"""Bytes of plain text, bytes of what has to be unpacked or parsed first, and files of a folder, that are read while
somebody waits for a click; what is larger is read when the task is prepared."""
PLAIN = (".json", ".jsonl", ".csv", ".tsv", ".txt", ".md", ".markdown", ".html", ".htm")
TOKENIZER_AT_ONCE = 4 << 20
IS_FOR = {
    "generative": Text("a model that writes text"),
    "embedding": Text("an embedder"),
}


WHOLE_MODEL = Text("It holds a whole model, no adapter.")
WHOLE_MODEL_HINT = Text("Name its folder as model_name_or_path, and leave start_from empty.")


def can_be_read_at_once(model: ModelRef) -> bool:
    """Whether a model lies on this machine, and its tokenizer can be read while somebody waits for a click."""
    if not model.is_local or model.packed is not None:
        return False
    tokenizer = Path(model.location) / TOKENIZER
    return not tokenizer.is_file() or tokenizer.stat().st_size <= TOKENIZER_AT_ONCE


def is_small(path: Path) -> bool:
    """Whether a file, or all the files of a folder, can be read while somebody waits for a click.

    What is not there is small: that it is missing is said at once.
    """
    size = 0
    for number, file in enumerate(path.rglob("*") if path.is_dir() else [path]):
        if file.is_file():
            weight = 1 if file.suffix.lower() in PLAIN else SMALL // SMALL_PACKED
            size += file.stat().st_size * weight
        if size > SMALL or number > SMALL_FILES:
            return False
    return True


def check_model(recipe: Recipe, model: ModelRef, at_once: bool = False) -> None:
    """Raise `InvalidModel` for a model that the method cannot train: of another kind, damaged, without template.

    Raises also `InvalidRecipe` for target modules that it does not have.

    Args:
        at_once: leave out what takes longer than a click may.
    """
    if model.task not in (None, recipe.model_task):
        raise _for_something_else(recipe, model)
    if not model.is_local or model.packed is not None:
        return
    folder = Path(model.location)
    modules = _modules(folder)
    if modules:
        _check_targets(recipe, modules)
    if at_once and not can_be_read_at_once(model):
        return
    if isinstance(recipe, GenerativeRecipe) and (folder / TOKENIZER).is_file() and not model.trust_remote_code:
        _check_tokenizer(model)


def check_copy(recipe: Recipe) -> None:
    """Raise `InvalidRecipe` unless the finished model can be copied to where the recipe says."""
    try:
        check_output(recipe.output_dir)
    except OutputNotEmpty as error:
        raise InvalidRecipe(error.message, error.hint, field="output_dir") from error
    except OSError as error:
        raise InvalidRecipe(
            Text(
                "output_dir = {output_dir!r}: it cannot be made ({strerror}).",
                output_dir=recipe.output_dir,
                strerror=error.strerror,
            ),
            Text("Name a folder in which the studio may write."),
            field="output_dir",
        ) from error


def check_kind(recipe: Recipe, dataset: Dataset) -> None:
    """Raise `InvalidDataset` unless the method can learn from the dataset's rows."""
    rows = dataset.stats.total_samples
    used = min(rows, recipe.max_samples or rows)
    if used < recipe.fewest_rows:
        raise InvalidDataset(
            Text(
                "{id} gives {used} rows; {type} needs at least {fewest_rows}.",
                id=dataset.id,
                used=used,
                type=recipe.type,
                fewest_rows=recipe.fewest_rows,
            ),
            Text("Add rows, or raise max_samples."),
        )
    if dataset.row_kind in recipe.accepts:
        return
    methods = ", ".join(methods_for(dataset.row_kind)) or "—"
    wanted = ", ".join(recipe.accepts)
    raise InvalidDataset(
        Text(
            "{id} holds {row_kind} rows; {type} learns from {wanted} rows.",
            id=dataset.id,
            row_kind=dataset.row_kind,
            type=recipe.type,
            wanted=wanted,
        ),
        Text("Methods for this dataset: {methods}. Or choose another dataset.", methods=methods),
    )


def check_rows(
    recipe: Recipe, model: ModelRef, path: Path, count: int, on_rows: Callable[[int], None] | None = None
) -> None:
    """Raise `InvalidDataset` where the model's template refuses a row, or the rows leave nothing to learn.

    Args:
        path: the dataset's ``data.jsonl``, with ``count`` rows.
        on_rows: called with the rows done, of `rows_to_check`. Without it only the first rows are read.
    """
    if recipe.model_task == "embedding":
        check_retrieval_rows(path, recipe, count)
    elif _reads_here(model):
        if on_rows is None:
            check_first_rows(path, recipe, tokenizer_of(model))
        else:
            check_many_rows(path, recipe, tokenizer_of(model), on_rows)


def rows_to_check(recipe: Recipe, count: int) -> int:
    """How many of ``count`` rows are read before a training; the trainer reads the others."""
    return min(recipe.max_samples or count, count, CHECKED)


def rows_left_out(recipe: Recipe, model: ModelRef, path: Path) -> SkippedRows:
    """Which rows the trainer will leave out; none where only it can say. Raises as `check_rows`."""
    return find_skipped_rows(path, recipe, tokenizer_of(model)) if _reads_here(model) else SkippedRows()


def remarks_on_rows(rows: SkippedRows, recipe: Recipe) -> list[Text]:
    """A sentence about rows that are left out; none without any."""
    if not rows.count:
        return []
    named = ", ".join(map(str, rows.first)) + (", …" if rows.count > len(rows.first) else "")
    return [
        Text(
            "{count} of {looked_at} rows will be left out (row {named}): max_length = {max_length} cuts "
            "off all there is to learn.",
            count=rows.count,
            looked_at=rows.looked_at,
            named=named,
            max_length=recipe.max_length,
        )
    ]


def why_merged(recipe: Recipe, base: str, adapter: str, max_rank: int) -> str:
    """For what vLLM will not hold the adapter as it is, so that it is merged into its base; empty if it will.

    Args:
        base: the folder or hub id of the model.
        adapter: the folder of the adapter that the recipe goes on with; empty for a new one.
    """
    if not isinstance(recipe, GenerativeRecipe) or not recipe.use_lora:
        return ""
    if adapter:
        return check_adapter(Path(adapter), base, "vllm", max_rank).merge
    if recipe.use_dora:
        return "DoRA"
    return f"rank {recipe.lora_r} (limit {max_rank})" if recipe.lora_r > max_rank else ""


def remarks_on_serving(why: str) -> list[Text]:
    """A sentence about an adapter that is merged into its base, see `why_merged`; none where it is not."""
    if not why:
        return []
    return [
        Text("vLLM cannot hold this adapter as it is ({why}): to serve it, it will be merged into its base.", why=why)
    ]


def _reads_here(model: ModelRef) -> bool:
    return model.is_local and not model.trust_remote_code and (Path(model.location) / TOKENIZER).is_file()


def _for_something_else(recipe: Recipe, model: ModelRef) -> InvalidModel:
    found, wanted = IS_FOR[model.task or recipe.model_task], IS_FOR[recipe.model_task]
    return InvalidModel(
        Text(
            "model_name_or_path = {name!r} is {found}; {type} trains {wanted}.",
            name=model.name,
            found=found,
            type=recipe.type,
            wanted=wanted,
        ),
        Text("Choose another model or another method."),
    )


def _modules(folder: Path) -> set[str]:
    """The modules that have weights, by their files' headers; raises `InvalidModel` for a file missing or cut off."""
    files = {path.name for path in folder.glob("*.safetensors")} | indexed_weights(folder)
    return {tensor.name.rpartition(".")[0] for name in sorted(files) for tensor in read_tensors(folder / name)}


def _check_targets(recipe: Recipe, modules: set[str]) -> None:
    names = [name.strip() for name in recipe.lora_target_modules.split(",") if name.strip()]
    if not recipe.use_lora or names == [ALL_LINEAR]:
        return
    unknown = [name for name in names if not any(f".{module}".endswith(f".{name}") for module in modules)]
    if unknown or not names:
        bad = ", ".join(unknown) or recipe.lora_target_modules
        known = ", ".join(sorted({module.rpartition(".")[2] for module in modules}))
        raise InvalidRecipe(
            Text(
                "lora_target_modules = {lora_target_modules!r}: the model has no module {bad}.",
                lora_target_modules=recipe.lora_target_modules,
                bad=bad,
            ),
            Text("Give {all_linear}, or some of: {known}.", all_linear=ALL_LINEAR, known=known),
            field="lora_target_modules",
        )


def _check_tokenizer(model: ModelRef) -> None:
    try:
        tokenizer = tokenizer_of(model)
    except InvalidModel as error:
        why = error.__cause__
        raise InvalidModel(
            Text("The tokenizer of {name} cannot be used: {why}", name=model.name, why=why),
            Text("Copy the model again, or choose another."),
        ) from error
    check_template(tokenizer)


def adapter_folder(tasks: TaskStore, recipe: Recipe, model: ModelRef) -> str:
    """The folder of the adapter that a recipe goes on with; empty for a new one."""
    start = recipe.start_from if isinstance(recipe, GenerativeRecipe) else ""
    if not start:
        return ""
    try:
        folder = Path(start) if Path(start).is_absolute() else tasks.completed(start).folder
        if (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
            raise InvalidModel(WHOLE_MODEL, WHOLE_MODEL_HINT)
        check_adapter(folder, model.location, "transformers", max_rank=0)
    except (NotFound, Conflict, InvalidModel, InvalidName) as error:
        raise InvalidRecipe(
            Text("start_from = {start}: {message}", start=start, message=error.message),
            error.hint,
            field="start_from",
        ) from error
    return str(folder)
