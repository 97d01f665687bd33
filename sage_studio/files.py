"""Writes files atomically, and refuses names that would leave a folder."""

import hashlib
import os
import re
import uuid
from pathlib import Path

from sage_studio.errors import InvalidName, naming_full_disk
from sage_studio.text import Text

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's content by an atomic rename: a reader sees the old or the new, never a part.

    Threads and processes may write the same path at once; the last one to finish wins. Raises `StorageFull`.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # not tempfile's: those files are for the owner only
    with naming_full_disk(path):
        try:
            with temporary.open("x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def safe_name(name: str) -> str:
    """Return an id that is to become a file name, unchanged.

    Raises:
        InvalidName: it holds anything but letters, digits, dot, dash and underscore, or begins with a dot.
    """
    if not SAFE_NAME.fullmatch(name) or ".." in name:
        raise InvalidName(
            Text(f"{name!r} is no valid id.", f"{name!r} 不是有效的 id。"),
            Text(
                "Ids hold letters, digits, '.', '_' and '-' only; take one from the list.",
                "id 只能包含字母、数字、“.”、“_”、“-”，请从列表中选取。",
            ),
        )
    return name


def upload_name(name: str) -> str:
    """The last part of a name that a client sent, fit to be a file's name here.

    Raises:
        InvalidName: it climbs with ``..`` or is hidden.
    """
    last = re.split(r"[\\/]", name)[-1].strip()
    if ".." in re.split(r"[\\/]", name) or last.startswith("."):
        raise InvalidName(
            Text(f"{name!r} is no valid file name.", f"{name!r} 不是有效的文件名。"),
            Text("Rename the file, without '..' or a leading dot.", "请重命名文件，不要含 “..”，也不要以点开头。"),
        )
    return re.sub(r"[^\w.-]", "_", last)[-128:] or "data"


def slug(name: str, fallback: str, longest: int = 48) -> str:
    """The part of an id, in ASCII, that stands for a name; a name that loses characters gets a digest.

    Args:
        fallback: stands in for a name without a letter or a digit of ASCII.
        longest: most characters, without the digest.

    Example:
        >>> slug("sage-docs", "dataset"), slug("我的数据", "dataset")
        ('sage-docs', 'dataset-de2ef7fa')
    """
    found = re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-_")[:longest].rstrip("-_")
    return found if found == name else f"{found or fallback}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
