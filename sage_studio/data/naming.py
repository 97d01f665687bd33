"""What a dataset may be called, and the part of its id that stands for the name.

Knows names of any script. Knows nothing of which are taken.
"""

import hashlib
import re
import unicodedata

from sage_studio.errors import InvalidName
from sage_studio.text import Text

LONGEST_NAME = 100
LONGEST_SLUG = 48


def checked_name(name: str) -> str:
    """A dataset's name as a person may write it, trimmed.

    Raises:
        InvalidName: empty, too long, or with a slash, a backslash or a control character.
    """
    name = unicodedata.normalize("NFC", name.strip())
    bad = [character for character in name if character in "/\\" or unicodedata.category(character) in ("Cc", "Cs")]
    if not name or len(name) > LONGEST_NAME or bad or name.strip(".") == "":
        raise InvalidName(
            Text(f"{name[:120]!r} cannot be a dataset's name.", f"{name[:120]!r} 不能作为数据集名称。"),
            Text(
                f"Give 1 to {LONGEST_NAME} characters of any script, without slashes and control characters.",
                f"请填写 1 到 {LONGEST_NAME} 个字符，不含斜杠和控制字符。",
            ),
        )
    return name


def slug_of(name: str) -> str:
    """The part of an id that stands for a name; names that lose characters are told apart by a hash.

    Example:
        >>> slug_of("sage-docs"), slug_of("我的数据")
        ('sage-docs', 'dataset-49b05b0d')
    """
    slug = re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-_")[:LONGEST_SLUG].rstrip("-_")
    if slug == name:
        return slug
    return f"{slug or 'dataset'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
