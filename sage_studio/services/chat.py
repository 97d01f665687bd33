"""Chat: one model's answer, several side by side, and votes."""

from collections.abc import Generator, Iterator, Sequence
from typing import Any

from sage_studio.database import Database
from sage_studio.errors import InvalidInput
from sage_studio.evaluation.arena import AnswerChunk, Standing, Vote, VoteStore, check_models, compare, standings
from sage_studio.services.rag import RagService, answer_once, answer_twice
from sage_studio.services.serving import ServingService
from sage_studio.serving.types import ChatChunk, ChatMessage, Source, check_sampling
from sage_studio.text import Text


class ChatService:
    """Answers, comparisons of answers, and which answer people preferred."""

    def __init__(self, serving: ServingService, rag: RagService, database: Database) -> None:
        self._serving = serving
        self._rag = rag
        self._votes = VoteStore(database)

    def answer(
        self,
        messages: Sequence[ChatMessage],
        model: str | None = None,
        documents: bool | str = False,
        expand: bool = False,
        **sampling: Any,
    ) -> Iterator[ChatChunk]:
        """Stream an answer; the engine is started first if it is down.

        Args:
            messages: the conversation, the user's message last.
            model: a registered model; None for the current one.
            documents: the dataset to answer from; True for the retriever's own. The last chunk then has ``sources``.
            expand: retrieve twice, the second time with a first answer of the same model, which is not shown.
            sampling: ``temperature``, ``top_p``, ``max_tokens``, ``seed``, ``stop``.

        Raises:
            EngineUnavailable, NotFound, InvalidInput.
            EmbedderUnavailable, InvalidDataset: nothing can be retrieved; without ``documents`` it answers.
        """
        if documents is False:
            _refuse_expansion(expand)
            return self._serving.answer(messages, model, **sampling)

        def retrieve(query: str) -> list[Source]:
            return self._rag.retrieve(query, dataset_id=documents if isinstance(documents, str) else "")

        if not expand:
            return answer_once(messages, lambda asked: self._serving.answer(asked, model, **sampling), retrieve)
        same: list[str] = [model] if model else []

        def ask(asked: Sequence[ChatMessage]) -> Generator[ChatChunk, None, None]:
            if not same:  # who answers first does so again, though another has become current
                same.append(self._serving.current_name())
            return self._serving.answer(asked, same[0], **sampling)

        return answer_twice(messages, ask, retrieve)

    def compare(self, messages: Sequence[ChatMessage], models: Sequence[str], **sampling: Any) -> Iterator[AnswerChunk]:
        """Ask two to four models the same and stream their answers side by side; closing the iterator ends them.

        A model that cannot answer says why in its own reply (``AnswerChunk.reply.error``); the others go on.

        Args:
            messages: the conversation, the user's message last.
            models: registered models, each once.
            sampling: as of `answer`.

        Raises:
            InvalidInput: too few or too many models, one twice, an empty message, or a wrong option.
        """
        check_models(models)
        check_sampling(sampling)
        if not messages or not messages[-1]["content"].strip():
            raise InvalidInput(Text("The message is empty."), Text("Type something."))
        return compare(lambda name: self._serving.answer_by(messages, name, **sampling), models)

    def vote(self, message: str, models: Sequence[str], winner: str) -> Vote:
        """Record which of the compared models answered best; an empty ``winner`` is a tie. Raises `InvalidInput`."""
        return self._votes.record(message, models, winner)

    def votes(self) -> list[Vote]:
        """Every vote, newest first."""
        return self._votes.all()

    def standings(self) -> list[Standing]:
        """How the models rank by the votes, best first."""
        return standings(self.votes())


def _refuse_expansion(expand: bool) -> None:
    """Without documents there is nothing to retrieve twice."""
    if expand:
        raise InvalidInput(
            Text("expand = true, but the answer is not from documents."),
            Text("Set documents too, or leave expand out."),
        )
