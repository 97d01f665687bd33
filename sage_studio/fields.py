"""Types of fields that OpenAPI describes more closely than ``str`` and ``int``.

The schemas are for whoever reads the document. It is the services that refuse what does not fit, in words of their own.
"""

from typing import Annotated, TypeAlias

from pydantic import WithJsonSchema

CONTROL = r"\x00-\x1f\x7f-\x9f"

SAFE = r"[A-Za-z0-9](\.?[A-Za-z0-9_-])*\.?"
REPOSITORY = r"[A-Za-z0-9_-](\.?[A-Za-z0-9_-])*\.?"

Id: TypeAlias = Annotated[str, WithJsonSchema({"type": "string", "pattern": f"^{SAFE}$", "maxLength": 128})]
"""An id that is the name of a folder: see `sage_studio.files.safe_name`."""
OptionalId: TypeAlias = Annotated[str, WithJsonSchema({"type": "string", "pattern": f"^({SAFE})?$", "maxLength": 128})]
"""An id, or empty."""
Ids: TypeAlias = Annotated[str, WithJsonSchema({"type": "string", "pattern": f"^{SAFE}(,{SAFE})+$"})]
"""Several ids, separated by commas."""
HubName: TypeAlias = Annotated[
    str, WithJsonSchema({"type": "string", "pattern": f"^{REPOSITORY}(/{REPOSITORY})?$", "maxLength": 193})
]
"""``owner/name`` on the hub."""
DatasetName: TypeAlias = Annotated[
    str,
    WithJsonSchema(
        {"type": "string", "pattern": rf"^(\.*[^./\\{CONTROL}][^/\\{CONTROL}]*)?$", "maxLength": 100},
    ),
]
"""The name of a new dataset; empty for one that is derived."""
Words: TypeAlias = Annotated[str, WithJsonSchema({"type": "string", "pattern": r"\S"})]
"""A text that is not blank."""
Query: TypeAlias = Annotated[str, WithJsonSchema({"type": "string", "pattern": r"\S", "maxLength": 4000})]
"""A question that passages are searched for."""
Offset: TypeAlias = Annotated[int, WithJsonSchema({"type": "integer", "minimum": 0})]
"""Where to begin."""
PageSize: TypeAlias = Annotated[int, WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 1000})]
"""Rows of one page."""
LineCount: TypeAlias = Annotated[int, WithJsonSchema({"type": "integer", "minimum": 1})]
"""Lines of a log."""
PassageCount: TypeAlias = Annotated[int, WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 50})]
"""Passages to find."""
Temperature: TypeAlias = Annotated[float, WithJsonSchema({"type": "number", "minimum": 0, "maximum": 2})]
"""Of sampling; 0 takes the likeliest token."""
TokenCount: TypeAlias = Annotated[int, WithJsonSchema({"type": "integer", "minimum": 1})]
"""Tokens of an answer, at most."""
