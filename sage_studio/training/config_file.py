"""A YAML file that holds a recipe's fields, named in place of them or beside them.

Knows what may stand in such a file, and what counts where a field is given twice. Knows no field but those that say
where the rows come from.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sage_studio.errors import InvalidRecipe
from sage_studio.text import Text
from sage_studio.training.recipes import Recipe

LARGEST = 1 << 20
FIELD = "config_file"
SHAPE = Text("Give one field a line, such as learning_rate: 1e-4.", "每行一个字段，例如 learning_rate: 1e-4。")


def read_fields(name: str) -> dict[str, Any]:
    """The fields in a file: a recipe as tasks keep it, or a template.

    Raises:
        InvalidRecipe: the file is not there, is too large, or holds no fields; the text names it.
    """
    path = Path(name).expanduser()
    try:
        if path.stat().st_size > LARGEST:
            raise _refused(name, Text(f"it is larger than {LARGEST >> 20} MiB", f"超过 {LARGEST >> 20} MiB"))
        return fields_of(yaml.safe_load(path.read_text(encoding="utf-8-sig")))
    except yaml.YAMLError as error:  # its own text would quote the file
        mark = getattr(error, "problem_mark", None)
        line = f" {mark.line + 1}" if mark is not None else ""
        raise _refused(name, Text(f"line{line} is no YAML", f"第{line} 行不是有效的 YAML")) from error
    except UnicodeDecodeError as error:
        raise _refused(name, Text("it is no text in UTF-8", "不是 UTF-8 文本")) from error
    except OSError as error:
        why = error.strerror or str(error)
        raise _refused(name, Text(f"it cannot be read ({why})", f"无法读取（{why}）")) from error
    except ValueError as error:
        raise _refused(name, Text("it holds no fields", "其中没有训练配置")) from error


def fields_of(content: Any) -> dict[str, Any]:
    """The fields in what YAML was read as; those of a template stand under ``values``. Raises `ValueError`."""
    values = content.get("values", content) if isinstance(content, dict) else None
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ValueError("no fields")
    return {**({"type": content["type"]} if "type" in content else {}), **values}


def merged(recipe: type[Recipe], in_file: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of both. Given ones count over the file's, unless they are empty or what they would be anyway.

    So a form, which gives every field, changes of the file what a person changed in it. Rows that are given take the
    place of those in the file.
    """
    fields = recipe.model_fields
    told = {
        name: value
        for name, value in given.items()
        if name not in in_file or not (value in (None, "") or (name in fields and value == fields[name].default))
    }
    if any(told.get(name) for name in recipe.sources):
        in_file = {name: value for name, value in in_file.items() if name not in recipe.sources}
    return {**in_file, **told}


def _refused(name: str, why: Text) -> InvalidRecipe:
    return InvalidRecipe(
        Text(f"{FIELD} = {name!r}: {why.en}.", f"{FIELD} = {name!r}：{why.zh}。"),
        Text(f"Name a YAML file on this machine. {SHAPE.en}", f"请填写本机的 YAML 文件。{SHAPE.zh}"),
        field=FIELD,
    )
