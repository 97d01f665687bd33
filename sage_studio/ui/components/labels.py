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
    TaskStatus.QUEUED: Text("Queued", "排队中"),
    TaskStatus.PREPARING: Text("Preparing", "准备中"),
    TaskStatus.TRAINING: Text("Training", "训练中"),
    TaskStatus.RUNNING: Text("Running", "运行中"),
    TaskStatus.STOPPING: Text("Stopping", "停止中"),
    TaskStatus.COMPLETED: Text("✅ Completed", "✅ 已完成"),
    TaskStatus.STOPPED: Text("Stopped", "已停止"),
    TaskStatus.FAILED: Text("Failed", "失败"),
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
    Action.RESUME: Text("Resume", "继续"),
    Action.SMALLER_BATCH: Text("Halve the batch and retry", "批大小减半并重试"),
    Action.LOWER_RATE: Text("Lower the rate and retry", "降低学习率并重试"),
    Action.OTHER_SETTINGS: Text("Change the settings", "修改设置"),
    Action.OTHER_MODEL: Text("Choose another model", "选择其他模型"),
    Action.OTHER_DATA: Text("Choose other data", "选择其他数据"),
}

PHASE: dict[Phase, Text] = {
    Phase.DOWNLOADING: Text("downloading the model", "下载模型"),
    Phase.UNPACKING: Text("unpacking the model", "解包模型"),
    Phase.READING_FILE: Text("reading the file", "读取文件"),
    Phase.CHECKING_ROWS: Text("reading rows", "读取数据行"),
    Phase.HASHING: Text("computing the checksum of the data", "计算数据校验和"),
    Phase.STARTING: Text("starting the trainer", "启动训练进程"),
    Phase.LOADING_MODEL: Text("loading the model", "加载模型"),
    Phase.READING_DATA: Text("reading the data", "读取数据"),
    Phase.SHORT_DEPENDENCY: Text("writing questions on each chunk", "为每个片段生成问答"),
    Phase.GENERAL_QUESTIONS: Text("writing general questions", "生成概括性问题"),
    Phase.LONG_DEPENDENCY: Text("answering from several chunks", "综合多个片段作答"),
    Phase.MIXING: Text("mixing the samples", "混合样本"),
    Phase.VERIFYING: Text("checking its own answers", "自我验证"),
    Phase.TRAINING: Text("training", "训练"),
    Phase.SAVING: Text("saving the model", "保存模型"),
    Phase.CHECKING: Text("checking the result", "检查结果"),
}

ENGINE_STATE: dict[EngineState, Text] = {
    EngineState.DOWN: Text("not started", "未启动"),
    EngineState.DOWNLOADING: Text("downloading", "下载中"),
    EngineState.STARTING: Text("starting", "启动中"),
    EngineState.READY: Text("ready", "就绪"),
    EngineState.SWITCHING: Text("switching", "切换中"),
    EngineState.FAILED: Text("error", "出错"),
    EngineState.ASLEEP: Text("paused by a training", "因训练暂停"),
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
    "base": Text("base", "基座"),
    "adapter": Text("tuned (LoRA)", "微调 (LoRA)"),
    "full": Text("tuned (full)", "微调（全参数）"),
    "external": Text("external", "外部"),
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
