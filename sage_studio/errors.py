"""Errors of the studio, as one tree.

The edges (``api``, ``ui``, ``cli``) translate them once; nobody else does.

    StudioError                  500  a fault that has a name
    ├── InvalidInput             422  what was given breaks a rule; the text names value, rule and remedy
    │   ├── InvalidSetting       422  studio.yaml or a SAGE_STUDIO_ variable
    │   ├── InvalidName          400  an id or a file name that could leave the studio's home
    │   ├── InvalidRecipe        422  a hyperparameter; ``field`` names it
    │   ├── InvalidDataset       422  a file or a row of it; ``row`` counts from 1
    │   │   └── UnknownColumns   422  a row with the keys of no known format
    │   └── InvalidModel         422  a model name, a folder or an adapter that cannot be used
    ├── NotFound                 404  a dataset, a task or a model that is not there
    ├── Conflict                 409  not possible in the present state
    ├── NotAllowed               403  another site's page, or a wrong login
    ├── Unavailable              503  something outside does not answer
    │   ├── DocsUnavailable      503  the documentation's repository
    │   ├── HubUnavailable       503  the model hub
    │   ├── EngineUnavailable    503  the inference engine
    │   ├── GpuUnavailable       503  a GPU that nvidia-smi lists and CUDA cannot open
    │   └── EmbedderUnavailable  503  the process that turns texts into vectors
    ├── NewerHome                409  a newer studio made the home's database
    └── StorageFull              507  no room on the disk
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from sage_studio.text import NOTHING, Language, Text


class StudioError(Exception):
    """A fault with a name, a sentence for the person and, where there is one, what to do about it."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500

    def __init__(self, message: Text, hint: Text = NOTHING) -> None:
        super().__init__(message.en)
        self.message = message
        self.hint = hint

    def say(self, language: Language) -> str:
        """The message and the remedy, as one text."""
        return " ".join(part for part in (self.message.in_(language), self.hint.in_(language)) if part)

    def say_at_form(self, language: Language) -> str:
        """The same to a person who fills in a form, and sees labels where a script sees names of fields."""
        return self.say(language)


class InvalidInput(StudioError):
    """What was given breaks a rule."""

    code, status = "invalid_input", 422


class InvalidSetting(InvalidInput):
    """``studio.yaml`` or a ``SAGE_STUDIO_`` variable holds a value that cannot be used."""

    code = "invalid_setting"


class InvalidName(InvalidInput):
    """An id or a file name with characters that could lead out of the studio's home."""

    code, status = "invalid_name", 400


class InvalidRecipe(InvalidInput):
    """A recipe's field is unknown, missing or out of bounds.

    Args:
        field: its name; empty where several do not fit together.
        at_form: the whole message for a person at the form, in the form's labels; empty: the message itself.
    """

    code = "invalid_recipe"

    def __init__(self, message: Text, hint: Text = NOTHING, *, field: str = "", at_form: Text = NOTHING) -> None:
        super().__init__(message, hint)
        self.field, self.at_form = field, at_form

    def say_at_form(self, language: Language) -> str:
        """In the form's labels."""
        return self.at_form.in_(language) if self.at_form else self.say(language)


class InvalidDataset(InvalidInput):
    """A data file, or one row of it, cannot be used."""

    code = "invalid_dataset"

    def __init__(self, message: Text, hint: Text = NOTHING, *, row: int | None = None) -> None:
        super().__init__(message, hint)
        self.row = row


class UnknownColumns(InvalidDataset):
    """A row has the keys of no known format: somebody has to say which column is which."""

    code = "unknown_columns"


class InvalidModel(InvalidInput):
    """A model name, a model folder or an adapter cannot be used."""

    code = "invalid_model"


class NotFound(StudioError):
    """Nothing of that name is there."""

    code, status = "not_found", 404


class Conflict(StudioError):
    """Not possible in the present state."""

    code, status = "conflict", 409


class NotAllowed(StudioError):
    """The caller may not do this."""

    code, status = "not_allowed", 403


class Unavailable(StudioError):
    """Something outside the studio does not answer."""

    code, status = "unavailable", 503


class DocsUnavailable(Unavailable):
    """The documentation's repository cannot be read."""

    code = "docs_unavailable"


class HubUnavailable(Unavailable):
    """The model hub cannot be reached."""

    code = "hub_unavailable"


class GpuUnavailable(Unavailable):
    """A GPU that ``nvidia-smi`` lists cannot be opened by CUDA."""

    code = "gpu_unavailable"


class EngineUnavailable(Unavailable):
    """The inference engine does not run, or did not start."""

    code = "engine_unavailable"


class EmbedderUnavailable(Unavailable):
    """The embedder does not run, or did not start."""

    code = "embedder_unavailable"


class NewerHome(StudioError):
    """A newer studio made the home's database."""

    code, status = "newer_home", 409


class StorageFull(StudioError):
    """No room on the disk."""

    code, status = "storage_full", 507


@contextmanager
def naming_full_disk(where: Path) -> Iterator[None]:
    """Turn the system's "no space left" under this block into `StorageFull`, naming ``where``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise storage_full(where) from error
        raise


def storage_full(where: Path) -> StorageFull:
    """The error for a full disk at ``where``."""
    return StorageFull(
        Text("No room left on the disk that holds {where}.", where=where),
        Text("Delete old tasks or datasets, or set SAGE_STUDIO_HOME to a larger disk; nothing already saved was lost."),
    )
