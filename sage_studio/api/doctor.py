"""The route for the doctor: what this machine can and cannot do. Knows nothing of how that is found out."""

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from sage_studio.api.guard import language
from sage_studio.doctor import as_json
from sage_studio.studio import Studio


class FindingView(BaseModel):
    """One check: what was found, what will not work, and the command or step that mends it."""

    check: str
    level: Literal["ok", "note", "problem", "blocking"]
    found: str
    consequence: str
    remedy: str


class DoctorResponse(BaseModel):
    """All checks of this machine, and whether everything works."""

    healthy: bool
    findings: list[FindingView]


def routes(studio: Studio) -> APIRouter:
    """The route ``/api/doctor``."""
    router = APIRouter(prefix="/api", tags=["health"])

    @router.get("/doctor")
    def doctor(request: Request) -> DoctorResponse:
        """What this machine can and cannot do, each with the command that mends it."""
        findings = [FindingView(**as_json(finding, language(request))) for finding in studio.doctor()]
        healthy = not any(finding.level in ("problem", "blocking") for finding in findings)
        return DoctorResponse(healthy=healthy, findings=findings)

    return router
