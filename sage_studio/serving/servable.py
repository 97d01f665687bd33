"""How a model can be chatted with on this machine, if at all: said before it is trained, and done at the start.

Pure: facts of a model, what the machine has and the settings become a `Servable`. vLLM in 16 bits where that fits, else
vLLM with weights in 8 bits, else the transformers engine with the base in 4 bits, else the CPU, else not at all.
"""

from dataclasses import dataclass
from typing import Literal

from sage_studio.hardware import Hardware
from sage_studio.serving.gpu import BF16_CAPABILITY, Form, ModelFacts, Plan, Slots, plan, plan_transformers
from sage_studio.serving.records import EngineKind
from sage_studio.serving.room import MARGIN_GB, main_memory_gb
from sage_studio.text import Text

BITSANDBYTES = "bitsandbytes"
ON_GPU = (Form.BF16, Form.FP8, Form.FOUR_BIT, Form.STORED)
ELSEWHERE = Text(
    "Choose a smaller model, or download the result and serve it on a larger machine.",
    "请选择更小的模型，或下载训练结果后在更大的机器上部署。",
)


@dataclass(frozen=True, slots=True)
class Servable:
    """How a model is served on this machine.

    Attributes:
        form: in which the weights are held; `Form.NONE` where it cannot be served, `Form.UNKNOWN` where nobody knows.
        engine: which engine serves it; empty where none does.
        memory_gb: what it takes, as estimated, in GiB: of all its GPUs together, or of main memory.
        said: a sentence about it for a person.
    """

    form: Form
    engine: EngineKind | Literal[""]
    memory_gb: float
    said: Text

    @property
    def possible(self) -> bool:
        """Whether it can be served here, as far as anybody knows."""
        return self.form is not Form.NONE

    @property
    def on_gpu(self) -> bool:
        """Whether it is served from a GPU."""
        return self.form in ON_GPU


EMBEDDER = Servable(
    Form.EMBEDDER,
    "",
    0.0,
    Text(
        "An embedder answers no chat: set the result as the retriever for questions about documents.",
        "嵌入模型不能用于对话：可将训练结果设为文档问答的检索器。",
    ),
)


NOT_KNOWN = Servable(
    Form.UNKNOWN,
    "",
    0.0,
    Text(
        "Whether the result can be chatted with here is known once the model's size is: its files are not here yet.",
        "模型文件尚未下载，大小未知，暂时无法判断训练结果能否在本机对话。",
    ),
)


def how_served(
    model: ModelFacts,
    hardware: Hardware,
    memory_share: float,
    engine: EngineKind,
    falls_back: bool = True,
    slots: Slots | None = None,
    merge: str = "",
) -> Servable:
    """Say whether and how a model, or an adapter on it, can be chatted with here.

    Args:
        model: the base's sizes; with ``parameters`` even where its files are not here yet.
        hardware: what is free, with what our own engine holds counted as free.
        memory_share: the operator's ``gpu_memory_utilization``.
        engine: the engine that the settings choose.
        falls_back: whether the transformers engine may serve what vLLM cannot.
        slots: the room for adapters that vLLM is started with.
        merge: why vLLM cannot hold the adapter as it is, so that it is merged into its base; empty if it can.
    """
    if engine == "openai":
        return _external()
    if not model.known:
        return NOT_KNOWN
    vllm = plan(hardware, memory_share, model, slots)
    refused = _refused_by_vllm(model, merge) if engine == "vllm" else None
    if engine == "vllm" and refused is None:
        if vllm.cards and vllm.fits:
            return _by_vllm(vllm, plan(hardware, memory_share, model, slots, (Form.BF16,)))
        if not hardware.has_gpu:
            return _on_cpu("vllm", model, vllm, hardware)
    if engine == "vllm" and not falls_back:
        return _not_at_all(model, vllm, refused)
    if model.quantized and model.quantized != BITSANDBYTES:
        return _not_at_all(model, vllm, refused or _not_in_transformers(model))
    planned = plan_transformers(hardware, model)
    if planned.cards:
        return _by_transformers(planned, vllm if engine == "vllm" else None, refused)
    served = _on_cpu("transformers", model, planned, hardware)
    return served if served.possible else _not_at_all(model, vllm, None)


def _by_vllm(planned: Plan, bf16: Plan) -> Servable:
    half = "fp16" if (planned.cards[0].capability or BF16_CAPABILITY) < BF16_CAPABILITY else "bf16"
    need, room, where = _figures(planned)
    en = {
        Form.BF16: f"vLLM in {half}",
        Form.FP8: f"vLLM with weights in 8 bits (fp8_per_tensor), since {half} would take {bf16.need_gb:.1f} GB",
        Form.STORED: "vLLM, quantized as it is stored",
    }[planned.form]
    zh = {
        Form.BF16: f"vLLM（{half}）",
        Form.FP8: f"vLLM，权重以 8 位加载（fp8_per_tensor），因为 {half} 需要 {bf16.need_gb:.1f} GB",
        Form.STORED: "vLLM，按存储的量化格式加载",
    }[planned.form]
    said = Text(
        f"The result can be chatted with here: {en}; about {need} of {room} GB on {where.en}.",
        f"训练结果可在本机对话：{zh}；约需 {need} GB，{where.zh} 可用 {room} GB。",
    )
    return Servable(planned.form, "vllm", planned.need_gb * len(planned.cards), said)


def _by_transformers(planned: Plan, vllm: Plan | None, refused: Text | None) -> Servable:
    need, room, where = _figures(planned)
    en = {Form.BF16: "in 16 bits", Form.FOUR_BIT: "with the base in 4 bits"}.get(planned.form, "quantized as stored")
    zh = {Form.BF16: "16 位", Form.FOUR_BIT: "基座以 4 位加载"}.get(planned.form, "按存储的量化格式加载")
    why = refused
    if why is None and vllm is not None:
        why = Text(f"vLLM would take {vllm.need_gb:.1f} GB", f"vLLM 需要 {vllm.need_gb:.1f} GB")
    since = Text(f", since {why.en}", f"（{why.zh}）") if why is not None else Text("", "")
    said = Text(
        f"The result can be chatted with here: the transformers engine {en}, one chat at a time{since.en}; "
        f"about {need} of {room} GB on {where.en}.",
        f"训练结果可在本机对话：transformers 引擎（{zh}），一次一个对话{since.zh}；"
        f"约需 {need} GB，{where.zh} 可用 {room} GB。",
    )
    return Servable(planned.form, "transformers", planned.need_gb, said)


def _on_cpu(kind: EngineKind, model: ModelFacts, planned: Plan, hardware: Hardware) -> Servable:
    need, room = main_memory_gb(kind, model, planned), max(0.0, hardware.memory_gb - MARGIN_GB)
    if need > room:
        return Servable(
            Form.NONE,
            "",
            need,
            Text(
                f"The result cannot be chatted with here: it takes about {need:.1f} GB of memory, and the machine has "
                f"{hardware.memory_gb:.1f}. {ELSEWHERE.en}",
                f"训练结果无法在本机对话：约需 {need:.1f} GB 内存，本机共有 {hardware.memory_gb:.1f} GB。"
                f"{ELSEWHERE.zh}",
            ),
        )
    slowly = Text(", slowly: no GPU has room for it", "（较慢：GPU 显存不足）") if hardware.has_gpu else Text("", "")
    said = Text(
        f"The result can be chatted with here: the {kind} engine on the CPU{slowly.en}; about {need:.1f} of "
        f"{hardware.memory_gb:.1f} GB of memory.",
        f"训练结果可在本机对话：{kind} 引擎，使用 CPU{slowly.zh}；约需 {need:.1f} GB 内存，"
        f"本机共有 {hardware.memory_gb:.1f} GB。",
    )
    return Servable(Form.CPU, kind, need, said)


def _not_at_all(model: ModelFacts, vllm: Plan, why: Text | None) -> Servable:
    if why is None:
        _, room, where = _figures(vllm) if vllm.cards else ("", "0.0", Text("this machine", "本机"))
        need = f"{vllm.need_gb:.1f}"
        why = Text(f"it takes about {need} of {room} GB on {where.en}", f"约需 {need} GB，{where.zh} 可用 {room} GB")
    said = Text(
        f"The result cannot be chatted with here: {why.en}. {ELSEWHERE.en}",
        f"训练结果无法在本机对话：{why.zh}。{ELSEWHERE.zh}",
    )
    return Servable(Form.NONE, "", vllm.need_gb, said)


def _refused_by_vllm(model: ModelFacts, merge: str) -> Text | None:
    if model.quantized == BITSANDBYTES:
        return Text("vLLM 0.32 has no bitsandbytes", "vLLM 0.32 不支持 bitsandbytes")
    if model.quantized and merge:
        return Text(
            f"the adapter must be merged into its base ({merge}), and the base is stored quantized ({model.quantized})",
            f"适配器必须合并到基座（{merge}），而基座以量化形式存储（{model.quantized}）",
        )
    return None


def _not_in_transformers(model: ModelFacts) -> Text:
    return Text(
        f"the base is stored quantized with {model.quantized}, which the transformers engine here does not load",
        f"基座以 {model.quantized} 量化存储，本机的 transformers 引擎无法加载",
    )


def _external() -> Servable:
    said = Text(
        "Chats are answered by someone else's server (engine=openai), which takes no tuned models from here. "
        "Set engine: auto to chat with the result.",
        "对话由外部服务器回答（engine=openai），无法加载此处的微调模型。如需与训练结果对话，请设置 engine: auto。",
    )
    return Servable(Form.EXTERNAL, "openai", 0.0, said)


def _figures(planned: Plan) -> tuple[str, str, Text]:
    """Memory of each GPU, as printed: what it takes, what there is, and the GPUs' name."""
    name, count = planned.cards[0].name, len(planned.cards)
    where = Text(f"each of {count} × {name}", f"{count} × {name} 每张") if count > 1 else Text(f"the {name}", name)
    return f"{planned.need_gb:.1f}", f"{planned.room_gb:.1f}", where
