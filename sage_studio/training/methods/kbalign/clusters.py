"""Chunks that are alike, put together so that they can be asked about at once.

Alike are chunks that share words, most of all those which few others hold (TF-IDF), in any script. Knows how many fit a
prompt together. Knows nothing of what is asked; draws no lots, so that a run which goes on finds the same clusters.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from sklearn.feature_extraction.text import TfidfVectorizer

from sage_studio.data.bm25 import words_of
from sage_studio.training.methods.kbalign.chunks import Chunk, Spans

ALIKE = 0.2
"""Least cosine to the chunk that a cluster begins with. Of the SAGE documentation's chunks, two drawn by chance come to
0.04 and to 0.18 once in a hundred times; a chunk and the one most like it to 0.43."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Chunks that are asked about at once; the first one's number is the cluster's."""

    chunks: tuple[Chunk, ...]

    @property
    def chunk(self) -> int:
        """The number of its first chunk."""
        return self.chunks[0].chunk

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of all its chunks, in order."""
        return tuple(chunk.chunk for chunk in self.chunks)

    @property
    def language(self) -> Literal["zh", "en"]:
        """Which language it is asked about in: its first chunk's."""
        return self.chunks[0].language


def clusters_of(
    chunks: Sequence[Chunk], size: int, room: int, spans: Spans, taken: Collection[int] = ()
) -> list[Cluster]:
    """Each chunk in one cluster, with those that are most like the first of it.

    Args:
        size: most chunks in a cluster.
        room: most tokens in a cluster; a chunk that is longer stands alone.
        spans: how tokens are counted.
        taken: numbers of chunks that stand in a cluster already.
    """
    free = [at for at, chunk in enumerate(chunks) if chunk.chunk not in taken]
    if size == 1:
        return [Cluster((chunks[at],)) for at in free]
    read = TfidfVectorizer(analyzer=lambda text: words_of(text) or [text], sublinear_tf=True)
    weights = read.fit_transform([chunk.shown for chunk in chunks])
    lengths = [len(spans(chunk.shown)) for chunk in chunks]
    clusters = list[Cluster]()
    while free:
        likeness = (weights @ weights[free[0]].T).toarray()[:, 0]
        alike = [at for at in free[1:] if likeness[at] >= ALIKE]
        ranked = [free[0], *sorted(alike, key=lambda at: (-likeness[at], at))]
        members = _fitting(ranked, lengths, size, room)
        clusters.append(Cluster(tuple(chunks[at] for at in sorted(members))))
        free = [at for at in free if at not in members]
    return clusters


def _fitting(ranked: Sequence[int], lengths: Sequence[int], size: int, room: int) -> set[int]:
    """The first, and of the others as many as there is room for, the most alike first."""
    members, used = {ranked[0]}, lengths[ranked[0]]
    for at in ranked[1:]:
        if len(members) < size and used + lengths[at] <= room:
            members.add(at)
            used += lengths[at]
    return members
