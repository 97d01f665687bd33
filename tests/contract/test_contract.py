"""What 0.1 promised still holds: more is welcome, less is a break. `describe.py` says how the record was made."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sage_studio.settings import PROJECT

HERE = Path(__file__).parent
CHANGED = {"sleep_mode": "auto"}
"""Defaults that are others today. ``auto`` sleeps as ``true`` did."""
RECORD = json.loads((HERE / "contract.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def today():
    done = subprocess.run(
        [sys.executable, str(HERE / "describe.py")], capture_output=True, text=True, check=True, cwd=PROJECT
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("operation", RECORD["rest"])
def test_each_rest_operation_takes_and_gives_what_it_did(today, operation):
    was, now = RECORD["rest"][operation], today["rest"].get(operation)
    assert now is not None, "the operation is gone"
    for where in ("parameters", "request"):
        gone = set(was[where]) - set(now[where])
        assert not gone, f"{where} no longer taken: {gone}"
        newly_required = {name for name, required in now[where].items() if required and not was[where].get(name, False)}
        assert not newly_required, f"{where} newly required: {newly_required}"
    gone = set(was["response"]) - set(now["response"])
    assert not gone, f"no longer answered: {gone}"


@pytest.mark.parametrize("endpoint", RECORD["endpoints"])
def test_each_gradio_client_endpoint_takes_what_it_did(today, endpoint):
    was, now = RECORD["endpoints"][endpoint], today["endpoints"].get(endpoint)
    assert now is not None, "the endpoint is gone"
    assert {name: now.get(name, "gone") for name in was} == was
    added = {name: default for name, default in now.items() if name not in was}
    assert "required" not in added.values()


@pytest.mark.parametrize("verb", RECORD["command_line"])
def test_each_verb_of_the_command_line_takes_what_it_did(today, verb):
    assert set(RECORD["command_line"][verb]) <= set(today["command_line"].get(verb, []))


@pytest.mark.parametrize("setting", RECORD["settings"])
def test_each_setting_has_the_default_that_it_had(today, setting):
    assert today["settings"].get(setting, "gone") == CHANGED.get(setting, RECORD["settings"][setting])


def test_the_log_says_what_it_said(today):
    assert not set(RECORD["log_lines"]) - set(today["log_lines"])


def test_everything_in_the_home_lies_where_it_lay(today):
    assert {name: today["paths"].get(name) for name in RECORD["paths"]} == RECORD["paths"]


@pytest.mark.parametrize("table", RECORD["tables"])
def test_each_table_has_the_columns_that_it_had(today, table):
    assert set(RECORD["tables"][table]) <= set(today["tables"].get(table, []))
