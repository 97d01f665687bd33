"""``GET /api/metrics``, and what can be done with a model on the list: unload, forget, never the current one."""

import pytest
from refusing import refuse
from waiting import wait_until

from sage_studio.errors import Conflict, NotFound
from sage_studio.serving.metrics import SAMPLE_FIELDS


def test_without_an_engine_there_are_no_figures(client):
    answer = client.get("/api/metrics").json()
    assert answer["newest"] is None
    assert set(answer["series"]) == {"time", *SAMPLE_FIELDS}
    assert answer["engine"]["state"] == "down"


def test_a_ready_engine_is_sampled_for_everybody(asking, answering):
    answering.serving.sampler.look()
    wait_until(lambda: len(answering.serving.metrics()) >= 2)
    answer = asking.get("/api/metrics").json()
    assert answer["newest"]["requests_running"] == 0
    assert answer["newest"]["kv_cache"] is None, "this engine does not tell"
    assert len({len(values) for values in answer["series"].values()}) == 1
    assert answer["series"]["time"][-1] == answer["newest"]["time"]
    assert answer["engine"]["state"] == "ready"


def loaded(studio):
    return {model.name for model in studio.serving.models() if model.loaded}


def test_a_model_is_taken_out_of_the_engine_and_comes_back_when_asked(answering):
    answering.serving.registry.generate("hello", model="tuned")
    assert loaded(answering) == {"small", "tuned"}
    assert not answering.serving.unload("tuned").loaded
    assert loaded(answering) == {"small"}
    assert answering.serving.registry.generate("hello", model="tuned").startswith("tuned@")


def test_what_the_engine_needs_is_not_unloaded(answering):
    answering.serving.switch("tuned")
    for name in ("tuned", "small"):
        with pytest.raises(Conflict):
            answering.serving.unload(name)
    with pytest.raises(NotFound):
        answering.serving.unload("nobody")
    assert loaded(answering) == {"small", "tuned"}


def test_forgetting_keeps_the_files_and_refuses_the_current_model(asking, answering):
    answering.serving.switch("tuned")
    refuse(asking.delete("/api/models/tuned"), 409, "tuned")
    refuse(asking.delete("/api/models/nobody"), 404, "nobody")
    assert asking.delete("/api/models/other").status_code == 200
    assert (answering.settings.outputs_dir / "other" / "adapter_config.json").is_file()
    assert {model.name for model in answering.serving.models()} == {"small", "tuned"}


def test_the_current_model_is_not_forgotten_while_the_engine_is_down_either(asking, answering):
    answering.serving.registry.close()
    refuse(asking.delete("/api/models/small"), 409, "small")


def test_a_merged_copy_goes_with_its_model_and_nothing_else_does(asking, answering):
    for folder in ("task/merged", "task/model"):
        path = answering.settings.outputs_dir / folder
        path.mkdir(parents=True)
        (path / "config.json").write_text("{}")
        answering.serving.registry.register_model(path.name, str(path), {"kind": "full", "base": str(path)})
    assert asking.delete("/api/models/merged").status_code == 200
    assert asking.delete("/api/models/model").status_code == 200
    assert [path.name for path in (answering.settings.outputs_dir / "task").iterdir()] == ["model"]
