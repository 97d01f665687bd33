"""The recipe for training an embedding model."""

from typing import ClassVar, Literal

from sage_studio.data.rows import RowKind
from sage_studio.models.model_folder import ModelTask
from sage_studio.text import Text
from sage_studio.training.recipes.base import Plot, Recipe, recipe_field

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
