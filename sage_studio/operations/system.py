"""Operations on the studio itself: its health, and what this machine can do."""

from typing import Literal

from pydantic import BaseModel

from sage_studio import __version__
from sage_studio.doctor import as_json
from sage_studio.operations.operation import Noun
from sage_studio.operations.serving import EngineView
from sage_studio.studio import Studio
from sage_studio.text import Language

system = Noun("studio")


class HealthView(BaseModel):
    """Whether the studio answers, and what its engine does."""

    status: str = "ok"
    version: str
    engine: EngineView


class CheckView(BaseModel):
    """One check: what was found, what will not work, and the command or step that mends it."""

    check: str
    level: Literal["ok", "note", "problem", "blocking"]
    found: str
    consequence: str
    remedy: str


class DoctorResponse(BaseModel):
    """All checks of this machine, and whether everything works."""

    healthy: bool
    findings: list[CheckView]


@system.get("/api/health", "health", parallel=True)
def health(studio: Studio, language: Language) -> HealthView:
    """Whether the studio answers, and what its engine does."""
    return HealthView(version=__version__, engine=EngineView.of(studio.serving.status(), language))


@system.get("/api/doctor", "doctor")
def doctor(studio: Studio, language: Language) -> DoctorResponse:
    """What this machine can and cannot do, each with the command that mends it."""
    findings = [CheckView(**as_json(finding, language)) for finding in studio.doctor()]
    healthy = not any(finding.level in ("problem", "blocking") for finding in findings)
    return DoctorResponse(healthy=healthy, findings=findings)
