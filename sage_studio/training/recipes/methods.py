"""The recipe of each training method: SFT and DPO, embedding models, KBAlign."""

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from sage_studio.data.rows import RowKind
from sage_studio.models.model_folder import ModelTask
from sage_studio.text import Text
from sage_studio.training.recipes.base import Plot, Recipe, recipe_field, with_default
from sage_studio.validation_errors import RuleError


class GenerativeRecipe(Recipe):
    """Trains a causal language model."""

    start_from: str = recipe_field(
        "",
        "what",
        Text("Continue from", "在已有任务上继续"),
        Text(
            "Optional: a finished task, or the folder of its adapter.",
            "可选：已完成任务的 id，或其适配器文件夹。",
        ),
    )
    quantization: Literal["none", "8bit", "4bit"] = recipe_field(
        "none",
        "common",
        Text("Quantization", "量化"),
        Text("Load the base in 8 or 4 bits to save memory.", "以 8 或 4 位加载基座以节省显存。"),
    )
    use_rslora: bool = recipe_field(
        False,
        "lora",
        Text("rsLoRA", "rsLoRA"),
        Text(
            "Scale by alpha / sqrt(rank): keeps high ranks useful (arXiv 2312.03732).",
            "按 alpha / sqrt(r) 缩放，高秩时更有效（arXiv 2312.03732）。",
        ),
    )
    use_dora: bool = recipe_field(
        False,
        "lora",
        Text("DoRA", "DoRA"),
        Text(
            "Train magnitude and direction separately: better at low ranks, slower (arXiv 2402.09353).",
            "分别训练幅度与方向：低秩时效果更好，但更慢（arXiv 2402.09353）。",
        ),
    )
    eval_share: float = recipe_field(
        0.0,
        "more",
        Text("Hold-out", "验证集比例"),
        Text(
            "Share kept for evaluation (0 = none); rows with the same question or long answer stay on one side.",
            "留作评估的数据比例（0 = 不评估）；问题或长回答相同的行不会分在两边。",
        ),
        ge=0,
        le=0.5,
    )
    eval_steps: int = recipe_field(
        0,
        "more",
        Text("Evaluate every", "评估间隔"),
        Text("N steps (0 = 10 times per run).", "每 N 步评估一次（0 = 全程约 10 次）。"),
        ge=0,
    )
    load_best_model: bool = recipe_field(
        True,
        "more",
        Text("Keep best checkpoint", "保留最佳检查点"),
        Text(
            "With a hold-out set: keep the checkpoint with the lowest hold-out loss, not the last one.",
            "设置验证集时：最终模型取验证损失最低的一次，而非最后一步。",
        ),
    )
    early_stopping_patience: int = recipe_field(
        0,
        "more",
        Text("Early stopping", "提前停止"),
        Text(
            "Stop after N evaluations without improvement (0 = never).",
            "连续若干次评估没有改善即停止；0 表示不提前停止。",
        ),
        ge=0,
        le=1000,
    )

    @model_validator(mode="after")
    def _adapter_fields_need_adapter(self) -> Self:
        if self.quantization != "none" and not self.use_lora:
            raise RuleError(
                Text("a quantized base can only be trained with use_lora", "量化的基座只能用 LoRA 训练（use_lora）"),
                Text(
                    "A quantized base can only be trained with LoRA: turn on Use LoRA, or set Quantization to none.",
                    "量化的基座只能用 LoRA 训练：请启用“使用 LoRA”，或将“量化”设为 none。",
                ),
            )
        if self.start_from and not self.use_lora:
            raise RuleError(
                Text(
                    "start_from continues an adapter and needs use_lora",
                    "start_from 是在适配器上继续训练，需要 use_lora",
                ),
                Text(
                    "Continuing from a finished task needs an adapter: turn on Use LoRA.",
                    "在已有任务上继续训练需要适配器：请启用“使用 LoRA”。",
                ),
            )
        if (self.use_dora or self.use_rslora) and not self.use_lora:
            raise RuleError(
                Text("use_dora and use_rslora need use_lora", "use_dora 与 use_rslora 需要 use_lora"),
                Text("DoRA and rsLoRA need Use LoRA.", "DoRA 与 rsLoRA 需要启用“使用 LoRA”。"),
            )
        return self

    @model_validator(mode="after")
    def _stopping_needs_held_out_rows(self) -> Self:
        if self.early_stopping_patience and not self.eval_share:
            raise RuleError(
                Text(
                    "early_stopping_patience needs a hold-out set (eval_share)",
                    "early_stopping_patience 需要设置验证集（eval_share）",
                ),
                Text(
                    "Early stopping needs a hold-out set: set Hold-out above 0.",
                    "“提前停止”需要验证集：请将“验证集比例”设为大于 0。",
                ),
            )
        if self.early_stopping_patience and not self.load_best_model:
            raise RuleError(
                Text("early_stopping_patience needs load_best_model", "early_stopping_patience 需要 load_best_model"),
                Text("Early stopping needs Keep best checkpoint.", "“提前停止”需要启用“保留最佳检查点”。"),
            )
        return self


class SFTRecipe(GenerativeRecipe):
    """Supervised fine-tuning: the loss falls on the answers, prompts are masked."""

    title: ClassVar[Text] = Text("SFT", "SFT 指令微调")
    accepts: ClassVar[tuple[RowKind, ...]] = ("conversation", "preference")

    type: Literal["sft"] = "sft"
    packing: bool = recipe_field(
        False,
        "more",
        Text("Packing", "打包"),
        Text(
            "Pack short rows into sequences of max_length tokens: faster where lengths vary, fewer steps.",
            "将短样本拼接到 max_length：长度差异大时更快，步数更少。",
        ),
    )


class DPORecipe(GenerativeRecipe):
    """Direct preference optimization (arXiv 2305.18290): makes the chosen answer likelier than the rejected one.

    The reference model is the one that training starts from: the base, or the adapter in ``start_from``.
    """

    title: ClassVar[Text] = Text("DPO", "DPO 偏好优化")
    accepts: ClassVar[tuple[RowKind, ...]] = ("preference",)
    plots: ClassVar[tuple[Plot, ...]] = (
        Plot(
            Text("Rewards", "奖励"),
            {
                "rewards/chosen": Text("chosen", "偏好回答"),
                "rewards/rejected": Text("rejected", "拒绝回答"),
                "rewards/margins": Text("margin", "差距"),
            },
        ),
        Plot(
            Text("Preference accuracy", "偏好准确率"),
            {
                "rewards/accuracies": Text("training", "训练"),
                "eval_rewards/accuracies": Text("hold-out", "验证"),
            },
        ),
    )

    type: Literal["dpo"] = "dpo"
    num_train_epochs: float = with_default(GenerativeRecipe, "num_train_epochs", 1.0)
    learning_rate: float = with_default(GenerativeRecipe, "learning_rate", 1e-5)
    lora_dropout: float = with_default(GenerativeRecipe, "lora_dropout", 0.0)
    warmup_ratio: float = with_default(GenerativeRecipe, "warmup_ratio", 0.1)
    beta: float = recipe_field(
        0.1,
        "common",
        Text("Beta", "Beta"),
        Text(
            "Strength of the KL penalty towards the reference model.", "对参考模型的 KL 惩罚强度，越大越接近参考模型。"
        ),
        gt=0,
        le=10,
    )
    loss_type: Literal[
        "sigmoid", "hinge", "ipo", "robust", "sigmoid_norm", "apo_zero", "apo_down", "sppo_hard", "nca_pair", "bco_pair"
    ] = recipe_field(
        "sigmoid",
        "common",
        Text("Loss", "损失类型"),
        Text(
            "sigmoid is the original DPO loss; robust tolerates label noise.",
            "sigmoid 为原始 DPO；robust 可容忍错误标注。",
        ),
    )
    label_smoothing: float = recipe_field(
        0.0,
        "more",
        Text("Label noise", "错误标注比例"),
        Text("Estimated share of swapped pairs; for the robust loss.", "估计的反向标注比例，用于 robust 损失。"),
        ge=0,
        lt=0.5,
    )
    sft_weight: float = recipe_field(
        0.0,
        "more",
        Text("SFT share", "SFT 权重"),
        Text(
            "Weight of an additional SFT loss on the chosen answers, which keeps them likely; 0 = off.",
            "在偏好回答上附加的 SFT 损失权重，防止其概率下降；0 表示不附加。",
        ),
        ge=0,
        le=100,
    )

    @model_validator(mode="after")
    def _smoothing_is_for_robust(self) -> Self:
        if bool(self.label_smoothing) != (self.loss_type == "robust"):
            raise RuleError(
                Text(
                    "label_smoothing and loss_type robust need each other",
                    "label_smoothing 与 loss_type robust 须同时使用",
                ),
                Text(
                    "Label noise and the loss robust need each other: set both or neither.",
                    "“标签噪声”与损失类型 robust 须同时使用。",
                ),
            )
        return self


# Embedding

FOUND = {"ndcg@10": "nDCG@10", "mrr@10": "MRR@10", "recall@10": "Recall@10"}


class EmbeddingRecipe(Recipe):
    """Trains an embedding model: pulls each query towards its positive passage and away from hard negatives.

    Learns from queries with passages that answer them (and passages that do not), or from conversations: the last
    question is the query, the answer is its passage.
    """

    title: ClassVar[Text] = Text("Embedding", "Embedding 检索")
    accepts: ClassVar[tuple[RowKind, ...]] = ("retrieval", "conversation")
    model_task: ClassVar[ModelTask] = "embedding"
    fewest_rows: ClassVar[int] = 4
    plots: ClassVar[tuple[Plot, ...]] = (
        Plot(
            Text("Retrieval on held-out queries", "留出查询的检索效果"),
            {name: Text(shown, shown) for name, shown in FOUND.items()},
        ),
    )

    type: Literal["embedding"] = "embedding"

    per_device_train_batch_size: int = recipe_field(
        32,
        "common",
        Text("Batch size", "批大小"),
        Text(
            "Queries per step; the passages of the others serve as negatives, so more is better.",
            "每步的查询数；每个查询以同批其他段落为负例，越大越好。",
        ),
        ge=2,
        le=4096,
    )
    learning_rate: float = recipe_field(
        2e-4,
        "common",
        Text("Learning rate", "学习率"),
        Text("Optimizer step size; 2e-5 is typical for full fine-tuning.", "优化器步长；不用 LoRA 时常用 2e-5。"),
        gt=0,
        le=1,
    )
    max_length: int = recipe_field(
        256,
        "common",
        Text("Max sequence length", "最大序列长度"),
        Text(
            "Longest query or passage in tokens, at most what the model reads; the rest is truncated.",
            "查询或段落最多的 token 数，不超过模型上限，超出部分会被截断。",
        ),
        ge=16,
        le=32768,
    )
    hard_negatives: int = recipe_field(
        3,
        "common",
        Text("Hard negatives", "难负例数"),
        Text("How many of a row's negative passages are used.", "每行使用的负例段落数。"),
        ge=0,
        le=16,
    )
    temperature: float = recipe_field(
        0.05,
        "more",
        Text("Temperature", "温度"),
        Text(
            "Of the softmax over similarities; smaller separates passages more sharply.", "越小，对段落的区分越严格。"
        ),
        gt=0,
        le=1,
    )
    mini_batch_size: int = recipe_field(
        0,
        "more",
        Text("Mini-batch", "小批大小"),
        Text(
            "GradCache mini-batch: large batches in little memory, about 20 % slower; 0 = off.",
            "把一批分成小块计算：用少量内存训练大批次，约慢五分之一；0 表示一次算完。",
        ),
        ge=0,
        le=1024,
    )
    eval_share: float = recipe_field(
        0.1,
        "more",
        Text("Hold-out", "验证集比例"),
        Text("Share of rows held out for evaluation, at most 500.", "留作评估的行的比例，最多 500 行。"),
        gt=0,
        le=0.5,
    )
    eval_passages: int = recipe_field(
        2000,
        "more",
        Text("Passages searched", "评估段落数"),
        Text("Passages in the corpus that the evaluation searches.", "评估时从多少段落中查找正确的一段。"),
        ge=10,
        le=100000,
    )
    eval_steps: int = recipe_field(
        0,
        "more",
        Text("Evaluate every", "评估间隔"),
        Text(
            "Evaluate every N steps (0 = only before and after training).", "两次评估之间的步数；0 表示仅在前后评估。"
        ),
        ge=0,
    )


# KBAlign


class KBAlignRecipe(GenerativeRecipe):
    """KBAlign (arXiv 2411.14790): the model annotates a knowledge base, trains on it, and verifies its own answers.

    The fields of supervised fine-tuning apply to each round. Defaults are the paper's, except for the learning rate,
    which suits an adapter (the paper trains all weights at 1e-5), and for the filters against hallucinations of small
    models (``min_support``, ``min_agreement``).
    """

    title: ClassVar[Text] = Text("KBAlign", "KBAlign 知识库自适应")
    accepts: ClassVar[tuple[RowKind, ...]] = ("passage", "conversation")
    sources: ClassVar[tuple[str, ...]] = (*GenerativeRecipe.sources, "input_path")

    type: Literal["kbalign"] = "kbalign"
    input_path: str = recipe_field(
        "",
        "files",
        Text("Knowledge base", "知识库路径"),
        Text(
            "File or folder on this machine (Markdown, TXT, JSON, …), used instead of a dataset.",
            "本机的 Markdown/TXT/JSON 等文件或文件夹，可代替数据集。",
        ),
    )
    num_train_epochs: float = with_default(GenerativeRecipe, "num_train_epochs", 1.0)
    learning_rate: float = with_default(GenerativeRecipe, "learning_rate", 1e-4)
    max_length: int = with_default(GenerativeRecipe, "max_length", 2048)

    rounds: int = recipe_field(
        3,
        "common",
        Text("Rounds", "轮次"),
        Text(
            "Training rounds, each on its part of the questions; from the second on the model first verifies itself.",
            "把问题分成几部分依次训练；从第二轮起先自我验证。",
        ),
        ge=1,
        le=20,
    )
    verification_ratio: float = recipe_field(
        0.3,
        "common",
        Text("Verification", "验证样本比例"),
        Text(
            "Self-verification rows per training row of a round, half correct, half wrong; 0: none.",
            "每轮自我验证样本相对训练样本的比例，正误各半；0 表示不做。",
        ),
        ge=0,
        le=2,
    )
    short_dependency: bool = recipe_field(
        True,
        "common",
        Text("Short dependency", "短依赖标注"),
        Text("Generate questions that a single chunk answers.", "生成由单个片段即可回答的问题。"),
    )
    long_dependency: bool = recipe_field(
        True,
        "common",
        Text("Long dependency", "长依赖标注"),
        Text("Generate general questions answered from several chunks; slow.", "生成需综合多个片段回答的问题，较慢。"),
    )
    max_chunks: int = recipe_field(
        0,
        "common",
        Text("Max chunks", "最多片段数"),
        Text(
            "Maximum number of chunks, spread evenly over the knowledge base; 0: all.",
            "最多使用的片段数，均匀抽取；0 为全部。",
        ),
        ge=0,
    )
    chunk_size: int = recipe_field(
        1024,
        "more",
        Text("Chunk size", "片段长度"),
        Text("Chunk length in tokens.", "片段长度（token）。"),
        ge=32,
        le=32768,
    )
    chunk_overlap: float = recipe_field(
        0.15,
        "more",
        Text("Overlap", "片段重叠"),
        Text("Fraction of a chunk that the next one repeats.", "相邻片段重叠的比例。"),
        ge=0,
        le=0.5,
    )
    answers: Literal["written", "quoted"] = recipe_field(
        "written",
        "more",
        Text("Answers", "答案来源"),
        Text(
            "written: generated by the model, as in the paper; quoted: sentences of the text, for small models.",
            "written：由模型撰写（同论文）；quoted：取原文句子，适合小模型。",
        ),
    )
    questions_per_chunk: int = recipe_field(
        0,
        "more",
        Text("Questions per chunk", "每片段问题数"),
        Text(
            "Pairs generated per chunk; 0: five, or three for a Chinese chunk.",
            "每个片段的问答数；0 表示 5 个，中文片段 3 个。",
        ),
        ge=0,
        le=20,
    )
    tries: int = recipe_field(
        3,
        "more",
        Text("Attempts", "尝试次数"),
        Text("Maximum attempts per chunk to get enough questions.", "问题不足时每个片段最多尝试的次数。"),
        ge=1,
        le=10,
    )
    min_support: float = recipe_field(
        0.6,
        "more",
        Text("Minimum support", "依据比例"),
        Text(
            "Fraction of an answer's words that must occur in its chunk, and all names and numbers; 0: no check.",
            "答案用词须出现在片段中的比例，其中专名与数字须全部出现；0 表示不限（同论文）。",
        ),
        ge=0,
        le=1,
    )
    min_agreement: float = recipe_field(
        0.6,
        "more",
        Text("Minimum agreement", "一致比例"),
        Text(
            "Minimum overlap between the answer and a second, independent answer from the chunk; 0 disables the check.",
            "模型看着片段重新作答时须与原答案一致的比例；0 表示不再问。",
        ),
        ge=0,
        le=1,
    )
    general_questions: int = recipe_field(
        3,
        "more",
        Text("General questions", "概括性问题数"),
        Text("Long dependency: general questions per chunk or cluster.", "长依赖：每个片段（或每组）的概括性问题数。"),
        ge=1,
        le=20,
    )
    cluster_size: int = recipe_field(
        1,
        "more",
        Text("Cluster size", "合并提问的片段数"),
        Text(
            "Maximum number of similar chunks per general question, limited by the context length; 1: no clustering.",
            "相似片段合并提出概括性问题，以模型上下文能容纳为限；1 表示逐个提问。",
        ),
        ge=1,
        le=10,
    )
    retrieved_chunks: int = recipe_field(
        10,
        "more",
        Text("Retrieved chunks", "检索片段数"),
        Text(
            "Chunks retrieved per general question; each gives a partial answer.",
            "每个概括性问题检索的片段数，逐个作答。",
        ),
        ge=1,
        le=100,
    )
    references: int = recipe_field(
        8,
        "more",
        Text("References", "参考片段数"),
        Text(
            "Passages retrieved per question as context in training; 0: questions alone.",
            "训练时随问题给出的参考片段数；0 表示不给。",
        ),
        ge=0,
        le=50,
    )
    reference_size: int = recipe_field(
        128,
        "more",
        Text("Reference size", "参考片段长度"),
        Text("Length of a reference in tokens.", "每个参考片段的 token 数。"),
        ge=16,
        le=2048,
    )
    temperature: float = recipe_field(
        0.8,
        "more",
        Text("Temperature", "采样温度"),
        Text("Sampling temperature of the annotation; verification uses 0.2.", "标注时的温度；自我验证用 0.2。"),
        ge=0,
        le=2,
    )
    top_p: float = recipe_field(
        0.95,
        "more",
        Text("Top p", "Top p"),
        Text("Nucleus sampling of the annotation; verification uses 0.8.", "标注时的 top p；自我验证用 0.8。"),
        gt=0,
        le=1,
    )
    generation_batch_size: int = recipe_field(
        8,
        "more",
        Text("Generation batch size", "生成批大小"),
        Text("Prompts per generation batch; more needs more memory.", "同时生成的文本数，越大越占内存。"),
        ge=1,
        le=512,
    )

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not (self.short_dependency or self.long_dependency):
            raise RuleError(
                Text(
                    "short_dependency and long_dependency cannot both be off",
                    "short_dependency 与 long_dependency 不能同时关闭",
                ),
                Text(
                    "Short dependency and Long dependency cannot both be off.",
                    "“短依赖标注”与“长依赖标注”不能同时关闭。",
                ),
            )
        return self
