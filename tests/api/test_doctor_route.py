"""``GET /api/doctor`` and the panel: what this machine can and cannot do, in the person's language."""

from sage_studio.doctor import CheckResult, Level
from sage_studio.text import verbatim
from sage_studio.ui.models.models_tab import machine_panel

OLD = CheckResult(
    "driver", Level.PROBLEM, verbatim("NVIDIA driver 550", "NVIDIA 驱动 550"), verbatim("No GPU.", "无 GPU。")
)


def test_the_findings_come_in_the_language_asked_for(client, studio, monkeypatch):
    monkeypatch.setattr(studio, "doctor", lambda: [OLD])
    told = client.get("/api/doctor", headers={"Accept-Language": "zh"}).json()
    assert told == {
        "healthy": False,
        "findings": [
            {"check": "driver", "level": "problem", "found": "NVIDIA 驱动 550", "consequence": "无 GPU。", "remedy": ""}
        ],
    }


def test_this_machine_answers(client):
    told = client.get("/api/doctor").json()
    assert {finding["check"] for finding in told["findings"]} >= {"python", "git", "disk"}


def test_the_panel_marks_what_does_not_work():
    shown = machine_panel([OLD], "en")
    assert 'class="notice failed"' in shown
    assert "NVIDIA driver 550" in shown
