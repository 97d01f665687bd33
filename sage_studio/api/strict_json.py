"""JSON bodies exactly as OpenAPI describes them: pydantic by itself takes 0 for false, and "5" or true for a number."""

import json
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BeforeValidator, TypeAdapter, ValidationError

from sage_studio.api.errors import UnsupportedMediaType
from sage_studio.text import Text


def strict(kind: Any) -> BeforeValidator:
    """A validator for a body of the type ``kind``. A whole float is an integer.

    It raises `RequestValidationError`, or `UnsupportedMediaType` for a body that was not sent as JSON.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(kind)

    def check(value: Any) -> Any:
        if isinstance(value, bytes):  # FastAPI has left the body as it came
            raise UnsupportedMediaType(
                Text("The body was not sent as JSON."),
                Text("Send Content-Type: application/json."),
            )
        try:
            adapter.validate_json(json.dumps(_with_integers(value)), strict=True)
        except ValidationError as error:
            errors = [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
            raise RequestValidationError(errors) from error
        except RecursionError as error:
            nested = {"type": "json_invalid", "loc": ("body",), "msg": "", "ctx": {"error": "nested too deeply"}}
            raise RequestValidationError([nested]) from error
        return value

    return BeforeValidator(check)


def _with_integers(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_with_integers(each) for each in value]
    if isinstance(value, dict):
        return {name: _with_integers(each) for name, each in value.items()}
    return value
