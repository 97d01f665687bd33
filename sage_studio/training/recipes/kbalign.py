"""The recipe of KBAlign. Knows its fields. Knows nothing of how it is done (`methods.kbalign`)."""

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from sage_studio.data.rows import RowKind
from sage_studio.text import Text
from sage_studio.training.field import knob, with_default
from sage_studio.training.recipes.generative import GenerativeRecipe


class KBAlignRecipe(GenerativeRecipe):
    """KBAlign (arXiv 2411.14790): the model asks itself about a knowledge base, learns, and checks its own answers.

    The fields of supervised fine-tuning hold for each round. Defaults are the paper's, but for the learning rate, which
    suits an adapter (the paper trains the whole model at 1e-5), and for what keeps a small model's inventions out
    (``min_support``, ``min_agreement``).
    """

    title: ClassVar[Text] = Text("KBAlign", "KBAlign 知识库自适应")
    accepts: ClassVar[tuple[RowKind, ...]] = ("passage", "conversation")
    sources: ClassVar[tuple[str, ...]] = (*GenerativeRecipe.sources, "input_path")

    type: Literal["kbalign"] = "kbalign"
    input_path: str = knob(
        "",
        "files",
        Text("Knowledge base", "知识库路径"),
        Text(
            "A file or folder of Markdown, TXT, JSON, … on this machine, in place of a dataset.",
            "本机的 Markdown/TXT/JSON 等文件或文件夹，可代替数据集。",
        ),
    )
    num_train_epochs: float = with_default(GenerativeRecipe, "num_train_epochs", 1.0)
    learning_rate: float = with_default(GenerativeRecipe, "learning_rate", 1e-4)
    max_length: int = with_default(GenerativeRecipe, "max_length", 2048)

    rounds: int = knob(
        3,
        "common",
        Text("Rounds", "轮次"),
        Text(
            "Parts the questions are split into; from the second on the model first checks itself.",
            "把问题分成几部分依次训练；从第二轮起先自我验证。",
        ),
        ge=1,
        le=20,
    )
    verification_ratio: float = knob(
        0.3,
        "common",
        Text("Verification", "验证样本比例"),
        Text(
            "Self-checks per training row of a round, as many correct as wrong; 0: none.",
            "每轮自我验证样本相对训练样本的比例，正误各半；0 表示不做。",
        ),
        ge=0,
        le=2,
    )
    short_dependency: bool = knob(
        True,
        "common",
        Text("Short dependency", "短依赖标注"),
        Text("Questions that one chunk answers.", "由单个片段即可回答的问题。"),
    )
    long_dependency: bool = knob(
        True,
        "common",
        Text("Long dependency", "长依赖标注"),
        Text("General questions, answered from several chunks; slow.", "需综合多个片段回答的问题，较慢。"),
    )
    max_chunks: int = knob(
        0,
        "common",
        Text("Max chunks", "最多片段数"),
        Text("Use so many at most, spread over the knowledge base; 0: all.", "最多使用的片段数，均匀抽取；0 为全部。"),
        ge=0,
    )
    chunk_size: int = knob(
        1024,
        "more",
        Text("Chunk size", "片段长度"),
        Text("Tokens that the model is asked about at once.", "一次标注的文本长度（token）。"),
        ge=32,
        le=32768,
    )
    chunk_overlap: float = knob(
        0.15,
        "more",
        Text("Overlap", "片段重叠"),
        Text("Share of a chunk that the next one repeats.", "相邻片段重叠的比例。"),
        ge=0,
        le=0.5,
    )
    answers: Literal["written", "quoted"] = knob(
        "written",
        "more",
        Text("Answers", "答案来源"),
        Text(
            "written: by the model, as in the paper; quoted: sentences of the text, for small models.",
            "written：由模型撰写（同论文）；quoted：取原文句子，适合小模型。",
        ),
    )
    questions_per_chunk: int = knob(
        0,
        "more",
        Text("Questions per chunk", "每片段问题数"),
        Text("0: five, of a Chinese chunk three.", "0 表示 5 个，中文片段 3 个。"),
        ge=0,
        le=20,
    )
    tries: int = knob(
        3,
        "more",
        Text("Tries", "尝试次数"),
        Text("How often a chunk is asked about until it has enough questions.", "问题不足时最多尝试的次数。"),
        ge=1,
        le=10,
    )
    min_support: float = knob(
        0.6,
        "more",
        Text("Support", "依据比例"),
        Text(
            "Share of an answer's words that its chunk must hold, and every name and number; 0: any (as in the paper).",
            "答案用词须出现在片段中的比例，其中专名与数字须全部出现；0 表示不限（同论文）。",
        ),
        ge=0,
        le=1,
    )
    min_agreement: float = knob(
        0.6,
        "more",
        Text("Agreement", "一致比例"),
        Text(
            "Share of an answer that must come again when the model is asked anew with its chunk; 0: not asked.",
            "模型看着片段重新作答时须与原答案一致的比例；0 表示不再问。",
        ),
        ge=0,
        le=1,
    )
    general_questions: int = knob(
        3,
        "more",
        Text("General questions", "概括性问题数"),
        Text("Per chunk or cluster, for the long dependency.", "每个片段（或每组）的概括性问题数（长依赖）。"),
        ge=1,
        le=20,
    )
    cluster_size: int = knob(
        1,
        "more",
        Text("Chunks asked about together", "合并提问的片段数"),
        Text(
            "Like chunks share their general questions, as many as the model can read at once; 1: none do.",
            "相似片段合并提出概括性问题，以模型上下文能容纳为限；1 表示逐个提问。",
        ),
        ge=1,
        le=10,
    )
    retrieved_chunks: int = knob(
        10,
        "more",
        Text("Chunks looked up", "检索片段数"),
        Text("Per general question; each is asked on its own.", "每个概括性问题检索的片段数，逐个作答。"),
        ge=1,
        le=100,
    )
    references: int = knob(
        8,
        "more",
        Text("References", "参考片段数"),
        Text(
            "Passages shown beside a question in training; 0: questions alone.",
            "训练时随问题给出的参考片段数；0 表示不给。",
        ),
        ge=0,
        le=50,
    )
    reference_size: int = knob(
        128,
        "more",
        Text("Reference size", "参考片段长度"),
        Text("Tokens of one reference.", "每个参考片段的 token 数。"),
        ge=16,
        le=2048,
    )
    temperature: float = knob(
        0.8,
        "more",
        Text("Temperature", "采样温度"),
        Text("Of the annotation; checks use 0.2.", "标注时的温度；自我验证用 0.2。"),
        ge=0,
        le=2,
    )
    top_p: float = knob(
        0.95,
        "more",
        Text("Top p", "Top p"),
        Text("Of the annotation; checks use 0.8.", "标注时的 top p；自我验证用 0.8。"),
        gt=0,
        le=1,
    )
    generation_batch_size: int = knob(
        8,
        "more",
        Text("Writing batch", "生成批大小"),
        Text("Texts written at once; more needs more memory.", "同时生成的文本数，越大越占内存。"),
        ge=1,
        le=512,
    )

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not (self.short_dependency or self.long_dependency):
            raise ValueError("short_dependency and long_dependency cannot both be off")
        return self
