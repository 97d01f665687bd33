"""Labels and colours of states and kinds, and of recipe fields named in a text."""

import functools
import re

from sage_studio.serving.types import EngineState, ModelKind
from sage_studio.tasks.task import TaskStatus
from sage_studio.text import Language, Text
from sage_studio.training.failures import Action
from sage_studio.training.progress import Phase
from sage_studio.training.recipes import RECIPES
from sage_studio.training.recipes.base import field_label

TASK_STATUS: dict[TaskStatus, Text] = {
    TaskStatus.QUEUED: Text("Queued"),
    TaskStatus.PREPARING: Text("Preparing"),
    TaskStatus.TRAINING: Text("Training"),
    TaskStatus.RUNNING: Text("Running"),
    TaskStatus.STOPPING: Text("Stopping"),
    TaskStatus.COMPLETED: Text("✅ Completed"),
    TaskStatus.STOPPED: Text("Stopped"),
    TaskStatus.FAILED: Text("Failed"),
}

TASK_COLOUR: dict[TaskStatus, str] = {
    TaskStatus.QUEUED: "waiting",
    TaskStatus.PREPARING: "running",
    TaskStatus.TRAINING: "running",
    TaskStatus.RUNNING: "running",
    TaskStatus.STOPPING: "waiting",
    TaskStatus.COMPLETED: "done",
    TaskStatus.STOPPED: "idle",
    TaskStatus.FAILED: "failed",
}

NEXT_ACTION: dict[Action, Text] = {
    Action.RESUME: Text("Resume"),
    Action.SMALLER_BATCH: Text("Halve the batch and retry"),
    Action.LOWER_RATE: Text("Lower the rate and retry"),
    Action.OTHER_SETTINGS: Text("Change the settings"),
    Action.OTHER_MODEL: Text("Choose another model"),
    Action.OTHER_DATA: Text("Choose other data"),
}

PHASE: dict[Phase, Text] = {
    Phase.DOWNLOADING: Text("downloading the model"),
    Phase.UNPACKING: Text("unpacking the model"),
    Phase.READING_FILE: Text("reading the file"),
    Phase.CHECKING_ROWS: Text("reading rows"),
    Phase.HASHING: Text("computing the checksum of the data"),
    Phase.STARTING: Text("starting the trainer"),
    Phase.LOADING_MODEL: Text("loading the model"),
    Phase.READING_DATA: Text("reading the data"),
    Phase.SHORT_DEPENDENCY: Text("writing questions on each chunk"),
    Phase.GENERAL_QUESTIONS: Text("writing general questions"),
    Phase.LONG_DEPENDENCY: Text("answering from several chunks"),
    Phase.MIXING: Text("mixing the samples"),
    Phase.VERIFYING: Text("checking its own answers"),
    Phase.TRAINING: Text("training"),
    Phase.SAVING: Text("saving the model"),
    Phase.CHECKING: Text("checking the result"),
}

ENGINE_STATE: dict[EngineState, Text] = {
    EngineState.DOWN: Text("not started"),
    EngineState.DOWNLOADING: Text("downloading"),
    EngineState.STARTING: Text("starting"),
    EngineState.READY: Text("ready"),
    EngineState.SWITCHING: Text("switching"),
    EngineState.FAILED: Text("error"),
    EngineState.ASLEEP: Text("paused by a training"),
}

ENGINE_COLOUR: dict[EngineState, str] = {
    EngineState.DOWN: "idle",
    EngineState.DOWNLOADING: "waiting",
    EngineState.STARTING: "waiting",
    EngineState.READY: "done",
    EngineState.SWITCHING: "waiting",
    EngineState.FAILED: "failed",
    EngineState.ASLEEP: "waiting",
}

MODEL_KIND: dict[ModelKind, Text] = {
    "base": Text("base"),
    "adapter": Text("tuned (LoRA)"),
    "full": Text("tuned (full)"),
    "external": Text("external"),
}


def in_labels(message: str, language: Language) -> str:
    """A text that names fields of a recipe, for a person at the form: ``max_length = 64`` -> ``Max sequence length 64``

    Scripts, who know the fields, get the text as it is.
    """
    names = _field_labels()
    return re.sub(
        rf"\b({'|'.join(names)})\b( = )?",
        lambda found: names[found[1]].in_(language) + (" " if found[2] else ""),
        message,
    )


@functools.lru_cache(maxsize=1)
def _field_labels() -> dict[str, Text]:
    """The label of each field whose name is no word of either language, the longest names first."""
    fields = {
        name: field_label(info)
        for recipe in RECIPES.values()
        for name, info in recipe.model_fields.items()
        if "_" in name and info.json_schema_extra
    }
    return dict(sorted(fields.items(), key=lambda item: -len(item[0])))
