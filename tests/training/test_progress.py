"""The two files that a child reports through, read while they are being written."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from sage_studio.text import verbatim
from sage_studio.training.progress import (
    JOB,
    PROGRESS,
    RESULT,
    Phase,
    ProgressWriter,
    Reason,
    Result,
    TrainingJob,
    read_events,
    read_job,
    read_result,
    result_for,
    write_result,
)


def test_events_come_back_in_order_with_their_phase(tmp_path: Path):
    writer = ProgressWriter(tmp_path)
    writer.phase(Phase.TRAINING)
    writer.write(step=1, loss=2.5)
    events, offset = read_events(tmp_path)
    assert [(event.phase, event.step, event.loss) for event in events] == [
        (Phase.TRAINING, None, None),
        (Phase.TRAINING, 1, 2.5),
    ]
    assert offset == (tmp_path / PROGRESS).stat().st_size


def test_reading_goes_on_where_it_left_off(tmp_path: Path):
    writer = ProgressWriter(tmp_path)
    writer.write(step=1)
    _, offset = read_events(tmp_path)
    assert read_events(tmp_path, offset) == ([], offset)
    writer.write(step=2)
    events, _ = read_events(tmp_path, offset)
    assert [event.step for event in events] == [2]


def test_half_a_line_waits_for_its_other_half(tmp_path: Path):
    writer = ProgressWriter(tmp_path)
    writer.write(step=1)
    writer.write(step=2)
    path = tmp_path / PROGRESS
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    events, offset = read_events(tmp_path)
    assert [event.step for event in events] == [1]
    path.write_bytes(whole)
    assert [event.step for event in read_events(tmp_path, offset)[0]] == [2]


def test_a_file_that_is_not_there_reads_as_empty(tmp_path: Path):
    assert read_events(tmp_path, 100) == ([], 0)
    assert read_result(tmp_path) is None


def test_a_result_keeps_both_languages(tmp_path: Path):
    write_result(tmp_path, result_for(verbatim("No.", "不。"), verbatim("Do.", "做。"), reason=Reason.DATA, steps=3))
    result = read_result(tmp_path)
    assert result is not None
    assert (result.status, result.reason, result.steps) == ("failed", Reason.DATA, 3)
    assert (result.message_text.zh, result.hint_text.en) == ("不。", "Do.")
    assert [path.name for path in tmp_path.iterdir()] == [RESULT]


@pytest.mark.parametrize("content", ['{"status": "perhaps"}', '{"status": "failed", "extra": 1}'])
def test_a_result_of_another_shape_is_refused(content: str):
    with pytest.raises(ValidationError):
        Result.model_validate_json(content)


def test_orders_with_an_unknown_key_are_refused(tmp_path: Path):
    orders = {"model_location": "/m", "data_path": "/d"}
    (tmp_path / JOB).write_text(json.dumps(orders))
    assert read_job(tmp_path) == TrainingJob(**orders)
    (tmp_path / JOB).write_text(json.dumps({**orders, "resmue": True}))
    with pytest.raises(ValidationError):
        read_job(tmp_path)
