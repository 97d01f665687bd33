"""The recipe of each training method: SFT and DPO, embedding models, KBAlign."""

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from sage_studio.data.rows import RowKind
from sage_studio.models.model_folder import ModelTask
from sage_studio.text import Text, verbatim
from sage_studio.training.recipes.base import Plot, Recipe, recipe_field, with_default
from sage_studio.validation_errors import RuleError


class GenerativeRecipe(Recipe):
    """Trains a causal language model."""

    start_from: str = recipe_field(
        "",
        "what",
        Text("Continue from"),
        Text("Optional: a finished task, or the folder of its adapter."),
    )
    quantization: Literal["none", "8bit", "4bit"] = recipe_field(
        "none",
        "common",
        Text("Quantization"),
        Text("Load the base in 8 or 4 bits to save memory."),
    )
    use_rslora: bool = recipe_field(
        False,
        "lora",
        verbatim("rsLoRA"),
        Text("Scale by alpha / sqrt(rank): keeps high ranks useful (arXiv 2312.03732)."),
    )
    use_dora: bool = recipe_field(
        False,
        "lora",
        verbatim("DoRA"),
        Text("Train magnitude and direction separately: better at low ranks, slower (arXiv 2402.09353)."),
    )
    eval_share: float = recipe_field(
        0.0,
        "more",
        Text("Hold-out"),
        Text("Share kept for evaluation (0 = none); rows with the same question or long answer stay on one side."),
        ge=0,
        le=0.5,
    )
    eval_steps: int = recipe_field(
        0,
        "more",
        Text("Evaluate every"),
        Text("N steps (0 = 10 times per run)."),
        ge=0,
    )
    load_best_model: bool = recipe_field(
        True,
        "more",
        Text("Keep best checkpoint"),
        Text("With a hold-out set: keep the checkpoint with the lowest hold-out loss, not the last one."),
    )
    early_stopping_patience: int = recipe_field(
        0,
        "more",
        Text("Early stopping"),
        Text("Stop after N evaluations without improvement (0 = never)."),
        ge=0,
        le=1000,
    )

    @model_validator(mode="after")
    def _adapter_fields_need_adapter(self) -> Self:
        if self.quantization != "none" and not self.use_lora:
            raise RuleError(
                Text("a quantized base can only be trained with use_lora"),
                Text("A quantized base can only be trained with LoRA: turn on Use LoRA, or set Quantization to none."),
            )
        if self.start_from and not self.use_lora:
            raise RuleError(
                Text("start_from continues an adapter and needs use_lora"),
                Text("Continuing from a finished task needs an adapter: turn on Use LoRA."),
            )
        if (self.use_dora or self.use_rslora) and not self.use_lora:
            raise RuleError(
                Text("use_dora and use_rslora need use_lora"),
                Text("DoRA and rsLoRA need Use LoRA."),
            )
        return self

    @model_validator(mode="after")
    def _stopping_needs_held_out_rows(self) -> Self:
        if self.early_stopping_patience and not self.eval_share:
            raise RuleError(
                Text("early_stopping_patience needs a hold-out set (eval_share)"),
                Text("Early stopping needs a hold-out set: set Hold-out above 0."),
            )
        if self.early_stopping_patience and not self.load_best_model:
            raise RuleError(
                Text("early_stopping_patience needs load_best_model"),
                Text("Early stopping needs Keep best checkpoint."),
            )
        return self


class SFTRecipe(GenerativeRecipe):
    """Supervised fine-tuning: the loss falls on the answers, prompts are masked."""

    title: ClassVar[Text] = Text("SFT")
    accepts: ClassVar[tuple[RowKind, ...]] = ("conversation", "preference")

    type: Literal["sft"] = "sft"
    packing: bool = recipe_field(
        False,
        "more",
        Text("Packing"),
        Text("Pack short rows into sequences of max_length tokens: faster where lengths vary, fewer steps."),
    )


class DPORecipe(GenerativeRecipe):
    """Direct preference optimization (arXiv 2305.18290): makes the chosen answer likelier than the rejected one.

    The reference model is the one that training starts from: the base, or the adapter in ``start_from``.
    """

    title: ClassVar[Text] = Text("DPO")
    accepts: ClassVar[tuple[RowKind, ...]] = ("preference",)
    plots: ClassVar[tuple[Plot, ...]] = (
        Plot(
            Text("Rewards"),
            {
                "rewards/chosen": Text("chosen"),
                "rewards/rejected": Text("rejected"),
                "rewards/margins": Text("margin"),
            },
        ),
        Plot(
            Text("Preference accuracy"),
            {
                "rewards/accuracies": Text("training"),
                "eval_rewards/accuracies": Text("hold-out"),
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
        verbatim("Beta"),
        Text("Strength of the KL penalty towards the reference model."),
        gt=0,
        le=10,
    )
    loss_type: Literal[
        "sigmoid", "hinge", "ipo", "robust", "sigmoid_norm", "apo_zero", "apo_down", "sppo_hard", "nca_pair", "bco_pair"
    ] = recipe_field(
        "sigmoid",
        "common",
        Text("Loss", context="recipe"),
        Text("sigmoid is the original DPO loss; robust tolerates label noise."),
    )
    label_smoothing: float = recipe_field(
        0.0,
        "more",
        Text("Label noise"),
        Text("Estimated share of swapped pairs; for the robust loss."),
        ge=0,
        lt=0.5,
    )
    sft_weight: float = recipe_field(
        0.0,
        "more",
        Text("SFT share"),
        Text("Weight of an additional SFT loss on the chosen answers, which keeps them likely; 0 = off."),
        ge=0,
        le=100,
    )

    @model_validator(mode="after")
    def _smoothing_is_for_robust(self) -> Self:
        if bool(self.label_smoothing) != (self.loss_type == "robust"):
            raise RuleError(
                Text("label_smoothing and loss_type robust need each other"),
                Text("Label noise and the loss robust need each other: set both or neither."),
            )
        return self


# Embedding

FOUND = {"ndcg@10": "nDCG@10", "mrr@10": "MRR@10", "recall@10": "Recall@10"}


class EmbeddingRecipe(Recipe):
    """Trains an embedding model: pulls each query towards its positive passage and away from hard negatives.

    Learns from queries with passages that answer them (and passages that do not), or from conversations: the last
    question is the query, the answer is its passage.
    """

    title: ClassVar[Text] = Text("Embedding")
    accepts: ClassVar[tuple[RowKind, ...]] = ("retrieval", "conversation")
    model_task: ClassVar[ModelTask] = "embedding"
    fewest_rows: ClassVar[int] = 4
    plots: ClassVar[tuple[Plot, ...]] = (
        Plot(
            Text("Retrieval on held-out queries"),
            {name: verbatim(shown) for name, shown in FOUND.items()},
        ),
    )

    type: Literal["embedding"] = "embedding"

    per_device_train_batch_size: int = recipe_field(
        32,
        "common",
        Text("Batch size"),
        Text("Queries per step; the passages of the others serve as negatives, so more is better."),
        ge=2,
        le=4096,
    )
    learning_rate: float = recipe_field(
        2e-4,
        "common",
        Text("Learning rate"),
        Text("Optimizer step size; 2e-5 is typical for full fine-tuning."),
        gt=0,
        le=1,
    )
    max_length: int = recipe_field(
        256,
        "common",
        Text("Max sequence length"),
        Text("Longest query or passage in tokens, at most what the model reads; the rest is truncated."),
        ge=16,
        le=32768,
    )
    hard_negatives: int = recipe_field(
        3,
        "common",
        Text("Hard negatives"),
        Text("How many of a row's negative passages are used."),
        ge=0,
        le=16,
    )
    temperature: float = recipe_field(
        0.05,
        "more",
        Text("Temperature"),
        Text("Of the softmax over similarities; smaller separates passages more sharply."),
        gt=0,
        le=1,
    )
    mini_batch_size: int = recipe_field(
        0,
        "more",
        Text("Mini-batch"),
        Text("GradCache mini-batch: large batches in little memory, about 20 % slower; 0 = off."),
        ge=0,
        le=1024,
    )
    eval_share: float = recipe_field(
        0.1,
        "more",
        Text("Hold-out"),
        Text("Share of rows held out for evaluation, at most 500."),
        gt=0,
        le=0.5,
    )
    eval_passages: int = recipe_field(
        2000,
        "more",
        Text("Passages searched"),
        Text("Passages in the corpus that the evaluation searches."),
        ge=10,
        le=100000,
    )
    eval_steps: int = recipe_field(
        0,
        "more",
        Text("Evaluate every"),
        Text("Evaluate every N steps (0 = only before and after training)."),
        ge=0,
    )


# KBAlign


class KBAlignRecipe(GenerativeRecipe):
    """KBAlign (arXiv 2411.14790): the model annotates a knowledge base, trains on it, and verifies its own answers.

    The fields of supervised fine-tuning apply to each round. Defaults are the paper's, except for the learning rate,
    which suits an adapter (the paper trains all weights at 1e-5), and for the filters against hallucinations of small
    models (``min_support``, ``min_agreement``).
    """

    title: ClassVar[Text] = Text("KBAlign")
    accepts: ClassVar[tuple[RowKind, ...]] = ("passage", "conversation")
    sources: ClassVar[tuple[str, ...]] = (*GenerativeRecipe.sources, "input_path")

    type: Literal["kbalign"] = "kbalign"
    input_path: str = recipe_field(
        "",
        "files",
        Text("Knowledge base"),
        Text("File or folder on this machine (Markdown, TXT, JSON, …), used instead of a dataset."),
    )
    num_train_epochs: float = with_default(GenerativeRecipe, "num_train_epochs", 1.0)
    learning_rate: float = with_default(GenerativeRecipe, "learning_rate", 1e-4)
    max_length: int = with_default(GenerativeRecipe, "max_length", 2048)

    rounds: int = recipe_field(
        3,
        "common",
        Text("Rounds"),
        Text("Training rounds, each on its part of the questions; from the second on the model first verifies itself."),
        ge=1,
        le=20,
    )
    verification_ratio: float = recipe_field(
        0.3,
        "common",
        Text("Verification"),
        Text("Self-verification rows per training row of a round, half correct, half wrong; 0: none."),
        ge=0,
        le=2,
    )
    short_dependency: bool = recipe_field(
        True,
        "common",
        Text("Short dependency"),
        Text("Generate questions that a single chunk answers."),
    )
    long_dependency: bool = recipe_field(
        True,
        "common",
        Text("Long dependency"),
        Text("Generate general questions answered from several chunks; slow."),
    )
    max_chunks: int = recipe_field(
        0,
        "common",
        Text("Max chunks"),
        Text("Maximum number of chunks, spread evenly over the knowledge base; 0: all."),
        ge=0,
    )
    chunk_size: int = recipe_field(
        1024,
        "more",
        Text("Chunk size"),
        Text("Chunk length in tokens."),
        ge=32,
        le=32768,
    )
    chunk_overlap: float = recipe_field(
        0.15,
        "more",
        Text("Overlap"),
        Text("Fraction of a chunk that the next one repeats."),
        ge=0,
        le=0.5,
    )
    answers: Literal["written", "quoted"] = recipe_field(
        "written",
        "more",
        Text("Answers"),
        Text("written: generated by the model, as in the paper; quoted: sentences of the text, for small models."),
    )
    questions_per_chunk: int = recipe_field(
        0,
        "more",
        Text("Questions per chunk"),
        Text("Pairs generated per chunk; 0: five, or three for a Chinese chunk."),
        ge=0,
        le=20,
    )
    tries: int = recipe_field(
        3,
        "more",
        Text("Attempts"),
        Text("Maximum attempts per chunk to get enough questions."),
        ge=1,
        le=10,
    )
    min_support: float = recipe_field(
        0.6,
        "more",
        Text("Minimum support"),
        Text("Fraction of an answer's words that must occur in its chunk, and all names and numbers; 0: no check."),
        ge=0,
        le=1,
    )
    min_agreement: float = recipe_field(
        0.6,
        "more",
        Text("Minimum agreement"),
        Text(
            "Minimum overlap between the answer and a second, independent answer from the chunk; 0 disables the check."
        ),
        ge=0,
        le=1,
    )
    general_questions: int = recipe_field(
        3,
        "more",
        Text("General questions"),
        Text("Long dependency: general questions per chunk or cluster."),
        ge=1,
        le=20,
    )
    cluster_size: int = recipe_field(
        1,
        "more",
        Text("Cluster size"),
        Text("Maximum number of similar chunks per general question, limited by the context length; 1: no clustering."),
        ge=1,
        le=10,
    )
    retrieved_chunks: int = recipe_field(
        10,
        "more",
        Text("Retrieved chunks"),
        Text("Chunks retrieved per general question; each gives a partial answer."),
        ge=1,
        le=100,
    )
    references: int = recipe_field(
        8,
        "more",
        Text("References"),
        Text("Passages retrieved per question as context in training; 0: questions alone."),
        ge=0,
        le=50,
    )
    reference_size: int = recipe_field(
        128,
        "more",
        Text("Reference size"),
        Text("Length of a reference in tokens."),
        ge=16,
        le=2048,
    )
    temperature: float = recipe_field(
        0.8,
        "more",
        Text("Temperature", context="sampling"),
        Text("Sampling temperature of the annotation; verification uses 0.2."),
        ge=0,
        le=2,
    )
    top_p: float = recipe_field(
        0.95,
        "more",
        verbatim("Top p"),
        Text("Nucleus sampling of the annotation; verification uses 0.8."),
        gt=0,
        le=1,
    )
    generation_batch_size: int = recipe_field(
        8,
        "more",
        Text("Generation batch size"),
        Text("Prompts per generation batch; more needs more memory."),
        ge=1,
        le=512,
    )

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not (self.short_dependency or self.long_dependency):
            raise RuleError(
                Text("short_dependency and long_dependency cannot both be off"),
                Text("Short dependency and Long dependency cannot both be off."),
            )
        return self
