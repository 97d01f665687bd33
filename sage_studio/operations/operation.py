"""Operations: what a caller can ask of the studio, declared once for four interfaces.

An operation is a function with a decorator. Its signature is the request, its annotations and docstring are the
documentation, and what it returns is the answer:

    @datasets.get("/api/datasets/{dataset_id}", command="show", raises=(NotFound,))
    def get_dataset(studio: Studio, dataset_id: str) -> DatasetView:
        \"""One dataset.\"""
        return DatasetView.of(studio.datasets.get(dataset_id))

From it come the REST route (`sage_studio.api.routes`), the named endpoint for ``gradio_client``
(`sage_studio.ui.endpoints`), the command ``sage datasets show`` (`sage_studio.cli`) and the MCP tool
(`sage_studio.mcp`). The parameter ``studio`` is given to every operation; ``language`` to those that name it. A
parameter whose type is a pydantic model stands for the fields of that model.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model

from sage_studio.errors import InvalidInput, StudioError
from sage_studio.studio import Studio
from sage_studio.text import Language, Text
from sage_studio.validation_errors import first_error

Method: TypeAlias = Literal["GET", "POST", "DELETE"]
Interface: TypeAlias = Literal["rest", "client", "cli", "mcp"]
ALL_INTERFACES: tuple[Interface, ...] = ("rest", "client", "cli", "mcp")
SCRIPTS: tuple[Interface, ...] = ("client", "cli", "mcp")
"""All interfaces but REST, for an operation whose REST route has another shape."""
GIVEN = ("studio", "language")
F = TypeVar("F", bound=Callable[..., Any])


class _Upload:
    """Marks a parameter as a file that the caller sends."""


UploadedFile: TypeAlias = Annotated[Path, _Upload()]


class Acknowledged(BaseModel):
    """The answer of an operation that has nothing else to say."""

    status: str = "success"


@dataclass(frozen=True, eq=False)
class Operation:
    """One thing that a caller can ask.

    Attributes:
        function: does it.
        noun, verb: the words of the command line.
        method, path, status: of the REST route; the path names its parameters in braces.
        raises: the errors that a caller has to expect, beside those that every operation can have.
        interfaces: where it is offered.
        parallel: whether ``gradio_client`` calls of it may run at the same time.
    """

    function: Callable[..., Any]
    noun: str
    verb: str
    method: Method
    path: str
    status: int = 200
    raises: tuple[type[StudioError], ...] = ()
    interfaces: tuple[Interface, ...] = ALL_INTERFACES
    parallel: bool = False

    @property
    def name(self) -> str:
        """The name of the endpoint and of the tool."""
        return self.function.__name__

    @property
    def description(self) -> str:
        """The docstring."""
        return inspect.getdoc(self.function) or ""

    @cached_property
    def hints(self) -> dict[str, Any]:
        """The annotations of the function, evaluated."""
        return get_type_hints(self.function, include_extras=True)

    @property
    def response(self) -> Any:
        """The type of the answer."""
        return self.hints["return"]

    @cached_property
    def path_parameters(self) -> tuple[str, ...]:
        """Names in the path."""
        return tuple(re.findall(r"{(\w+)(?::\w+)?}", self.path))

    @cached_property
    def model_parameter(self) -> tuple[str, type[BaseModel]] | None:
        """The parameter whose fields are the request, if there is one."""
        for name, hint in self.hints.items():
            if name not in (*GIVEN, "return") and isinstance(hint, type) and issubclass(hint, BaseModel):
                return name, hint
        return None

    @cached_property
    def request(self) -> type[BaseModel]:
        """All parameters as the fields of a model; unknown ones are refused."""
        return self._model(())

    @cached_property
    def body(self) -> type[BaseModel]:
        """The parameters that are not in the path."""
        if self.model_parameter is not None and not self.path_parameters:
            return self.model_parameter[1]
        return self._model(self.path_parameters)

    @cached_property
    def file_parameter(self) -> str | None:
        """The parameter that is a file, if there is one."""
        return next((name for name, hint in self.hints.items() if is_upload(hint)), None)

    def run(self, studio: Studio, values: Mapping[str, Any], language: Language = "en") -> Any:
        """Do it with values that fit `request` already."""
        given = dict(values)
        if self.model_parameter is not None:
            name, model = self.model_parameter
            with self._naming_values():
                given[name] = model(**{key: given.pop(key) for key in model.model_fields if key in given})
        if "language" in self.hints:
            given["language"] = language
        return self.function(studio, **given)

    def checked(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values that a script or a command gave, as the types of `request`. None stands for the default.

        Raises:
            InvalidInput: naming the first wrong one.
        """
        fields = self.request.model_fields
        given = {
            name: value for name, value in values.items() if value is not None or _takes_none(fields.get(name), name)
        }
        with self._naming_values():
            read = self.request.model_validate(given)
        return {name: getattr(read, name) for name in fields if name in read.model_fields_set}

    @contextmanager
    def _naming_values(self) -> Iterator[None]:
        try:
            yield
        except ValidationError as error:
            message = first_error(error.errors()).sentence
            fields = list(self.request.model_fields)
            raise InvalidInput(
                Text("{name}: {message}.", name=self.name, message=message),
                Text("It takes {fields}.", fields=fields) if fields else Text("It takes no parameters."),
            ) from error

    def plain(self, answer: Any) -> Any:
        """An answer as JSON values."""
        return TypeAdapter(self.response).dump_python(answer, mode="json")

    def _model(self, without: tuple[str, ...]) -> type[BaseModel]:
        fields: dict[str, Any] = {}
        for parameter in inspect.signature(self.function).parameters.values():
            if parameter.name in GIVEN or parameter.name in without:
                continue
            if self.model_parameter is not None and parameter.name == self.model_parameter[0]:
                fields |= {
                    name: (info.rebuild_annotation(), info)
                    for name, info in self.model_parameter[1].model_fields.items()
                }
                continue
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            fields[parameter.name] = (self.hints[parameter.name], default)
        title = "".join(part.capitalize() for part in self.name.split("_"))
        return create_model(f"{title}Request", __config__=ConfigDict(extra="forbid"), **fields)


@dataclass
class Noun:
    """The operations on one thing, which share the first word of their commands."""

    name: str
    operations: list[Operation] = field(default_factory=list)

    def get(self, path: str, command: str, **more: Any) -> Callable[[F], F]:
        """Declare an operation that changes nothing. Options as of `Operation`."""
        return self._declare("GET", path, command, more)

    def post(self, path: str, command: str, **more: Any) -> Callable[[F], F]:
        """Declare an operation that makes or does something."""
        return self._declare("POST", path, command, more)

    def delete(self, path: str, command: str, **more: Any) -> Callable[[F], F]:
        """Declare an operation that ends or deletes something."""
        return self._declare("DELETE", path, command, more)

    def _declare(self, method: Method, path: str, command: str, more: Mapping[str, Any]) -> Callable[[F], F]:
        def keep(function: F) -> F:
            self.operations.append(Operation(function, self.name, command, method, path, **more))
            return function

        return keep


def is_upload(hint: Any) -> bool:
    """Whether a parameter's type is `UploadedFile`."""
    return any(isinstance(each, _Upload) for each in get_args(hint))


def _takes_none(info: Any, name: str) -> bool:
    """Whether None is a value of a field and not only "as if it were not given"."""
    return info is None or (info.default is not None and type(None) in get_args(info.annotation))
