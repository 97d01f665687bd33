"""Views of answers, and the operations on votes. Chat and comparison stream: their routes are written by hand."""

from pydantic import BaseModel, Field

from sage_studio.errors import InvalidInput
from sage_studio.evaluation.arena import Reply, Standing, Vote
from sage_studio.operations.operation import Noun
from sage_studio.studio import Studio
from sage_studio.text import Language

votes = Noun("votes")


class ReplyView(BaseModel):
    """One model's answer in a comparison."""

    asked: str
    model: str = Field(description="The identity that the server returned; empty if it never answered")
    response: str
    done: bool
    usage: dict[str, int]
    tokens_per_second: float | None
    first_token_seconds: float | None
    seconds: float = Field(description="From the question to the end of the answer")
    error: dict[str, str] | None = Field(description="code, message and hint, where it could not answer")

    @classmethod
    def of(cls, reply: Reply, language: Language = "en") -> "ReplyView":
        """The view of a reply as it stands."""
        fault = reply.error
        return cls(
            asked=reply.asked,
            model=reply.model,
            response=reply.text,
            done=reply.done,
            usage={"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens},
            tokens_per_second=reply.tokens_per_second,
            first_token_seconds=reply.first_token_seconds,
            seconds=round(reply.seconds, 3),
            error=None
            if fault is None
            else {"code": fault.code, "message": fault.message.in_(language), "hint": fault.hint.in_(language)},
        )


class VotesResponse(BaseModel):
    """How the models rank, best first, and every vote, newest first."""

    standings: list[Standing]
    votes: list[Vote]


@votes.post("/api/compare/votes", "record", status=201, raises=(InvalidInput,))
def record_vote(studio: Studio, message: str, models: list[str], winner: str = "") -> Vote:
    """Record which of the compared models answered best; an empty winner is a tie."""
    return studio.chat.vote(message, models, winner)


@votes.get("/api/compare/votes", "list")
def list_votes(studio: Studio) -> VotesResponse:
    """Every vote, and how the models rank."""
    return VotesResponse(standings=studio.chat.standings(), votes=studio.chat.votes())
