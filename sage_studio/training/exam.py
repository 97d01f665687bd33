"""How well an embedder finds the right passages, measured on held-out queries.

Knows which figures are taken and what an exam costs. Knows nothing of training.
"""

from typing import Any

from sage_studio.training.queries import Exam

FIGURES = ("recall@1", "recall@5", "recall@10", "mrr@10", "ndcg@10")


def examine(model: Any, exam: Exam, batch_size: int = 32) -> dict[str, float]:
    """Rank the exam's passages for each of its queries by cosine similarity.

    Returns:
        `FIGURES`, each from 0 to 1 and rounded to four digits: recall@k is the share of the right passages among the
        first k, MRR the mean of 1 / rank of the first right one, nDCG the discounted gain against that of a perfect
        ranking.
    """
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
    from sentence_transformers.util import cos_sim

    evaluator = InformationRetrievalEvaluator(
        exam.queries,
        exam.corpus,
        exam.relevant,
        accuracy_at_k=[1],
        precision_recall_at_k=[1, 5, 10],
        mrr_at_k=[10],
        ndcg_at_k=[10],
        map_at_k=[10],
        batch_size=batch_size,
        score_functions={"cosine": cos_sim},
        write_csv=False,
    )
    was_training = model.training
    figures = evaluator(model)
    model.train(was_training)
    return {name: round(float(figures[f"cosine_{name}"]), 4) for name in FIGURES}
