"""What a comparison and the engine's figures look like, without a browser: what is hidden, shown and offered."""

from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import pytest
from fake_studio import FakeStudio

from sage_studio.errors import Conflict, EngineUnavailable, InvalidInput
from sage_studio.evaluation.arena import Reply, Standing
from sage_studio.serving.metrics import Sample
from sage_studio.text import verbatim
from sage_studio.ui.chat.compare_view import Round, columns, standings_table
from sage_studio.ui.components.localization import LabelRegistry
from sage_studio.ui.components.plots import timeline
from sage_studio.ui.models.models_tab import offered
from sage_studio.ui.models.performance_view import PLOTS, PerformanceView, figures

GONE = EngineUnavailable(
    verbatim("The engine cannot load tuned.", "引擎无法加载 tuned。"), verbatim("Train again.", "请重新训练。")
)
BASE = Reply("base", "base-as-served", "It is **so**.", True, 31, 44, 18.24, 0.312, 2.65)
TUNED = replace(BASE, asked="tuned", model="tuned")


def test_a_reply_stands_under_the_servers_name_with_its_figures():
    said = columns(Round("why?", (BASE, TUNED)), "en")
    assert "base-as-served" in said
    for figure in ("18.2 tok/s", "0.31 s", "2.65 s", ">44<", "<strong>so</strong>"):
        assert said.count(figure) == 2
    assert "data-vote" not in said


def test_a_blind_round_says_no_name_until_the_vote():
    hidden = Round("why?", (BASE, replace(TUNED, done=False, error=GONE), replace(BASE, asked="third")), blind=True)
    said = columns(hidden, "zh")
    assert not any(name in said for name in ("base-as-served", "tuned", "third"))
    assert "引擎无法加载 B。" in said
    assert [f'data-vote="{place}"' in said for place in (0, 1, 2, -1)] == [True, False, True, True]
    shown = columns(replace(hidden, vote=2), "zh")
    assert all(name in shown for name in ("base-as-served", "tuned"))
    assert "data-vote" not in shown
    assert shown.count(" won") == 1


def test_nobody_votes_while_an_answer_is_under_way_or_alone():
    talking = replace(TUNED, done=False)
    assert not Round("why?", (BASE, talking), blind=True).takes_votes
    assert not Round("why?", (BASE, replace(talking, error=GONE)), blind=True).takes_votes
    assert not Round("why?", (BASE, TUNED)).takes_votes
    assert Round("why?", (BASE, TUNED), blind=True).takes_votes


def test_words_of_a_model_or_a_person_are_no_html_and_load_nothing():
    wild = "<script>x</script> ![p](http://evil.example/p.png) [l](javascript:x)"
    said = columns(Round("<b>why</b>", (replace(BASE, text=wild), TUNED)), "en")
    assert "<script" not in said
    assert "<b>" not in said
    assert "<img" not in said
    assert 'href="javascript' not in said


class Picked:
    """What gradio tells of a click."""

    def __init__(self, key):
        self.key = key


@pytest.fixture
def panel(page, fake):
    from sage_studio.ui.chat.compare_panel import ComparePanel

    made = ComparePanel.__new__(ComparePanel)
    made.studio = FakeStudio(start_seconds=0.1)
    return made


def test_asking_streams_and_a_vote_is_kept_once(panel):
    pictures = list(panel.ask("en", " why? ", ["sage-a", "sage-b"], True, "", 0.7, 64))
    assert pictures[0][0] == "", "the line is empty for the next message"
    shown = pictures[-1][1]
    assert sorted(reply.asked for reply in shown.replies) == ["sage-a", "sage-b"]
    assert shown.takes_votes
    _, voted, _ = panel.vote("en", 0, shown, Picked("0"))
    assert panel.studio.chat.kept_votes[0].winner == shown.replies[0].asked
    for again in (voted, replace(shown, blind=False)):
        with pytest.raises(Conflict):
            panel.vote("en", 0, again, Picked("1"))
    with pytest.raises(Conflict):
        panel.vote("en", 0, shown, Picked("7"))
    assert len(panel.studio.chat.kept_votes) == 1


def test_too_few_models_are_refused_and_the_message_is_kept(panel):
    with pytest.raises(InvalidInput):
        next(panel.ask("en", "why?", ["sage-a"], False, "", 0.7, 64))


def test_blind_columns_are_shuffled(panel):
    names = ["sage-a", "sage-b", "sage-c", "sage-d"]
    orders = {
        tuple(reply.asked for reply in next(panel.ask("en", "why?", names, True, "", 0.7, 64))[1].replies)
        for _ in range(40)
    }
    assert len(orders) > 5
    plain = next(panel.ask("en", "why?", names, False, "", 0.7, 64))[1]
    assert [reply.asked for reply in plain.replies] == names


def test_stopping_keeps_what_was_said_and_reveals_it(panel):
    shown, said = panel.stopped("en", Round("why?", (BASE, replace(TUNED, done=False)), blind=True))
    assert shown.stopped
    assert "base-as-served" in said
    assert "stopped" in said
    assert not shown.takes_votes


def test_the_tally_shows_shares():
    assert standings_table([], "en") == ""
    said = standings_table([Standing("tuned", 3, 1, 5), Standing("base", 1, 1, 5)], "en")
    assert "60%" in said
    assert "20%" in said


def test_a_model_offers_what_can_be_done_with_it():
    fake = FakeStudio(start_seconds=0.1)
    fake.serving.start_engine()
    fake.serving.use_task("finetune-1763750000")
    tuned = fake.serving.use_task("finetune-1763760000")
    base, other, current = fake.serving.models()
    can = {name: [update["interactive"] for update in offered(picked)] for name, picked in
           {"none": [], "current": [current], "other": [other], "base": [base],
            "unloaded": [fake.serving.unload(other.name)]}.items()}  # fmt: skip
    assert tuned.current
    assert can["none"] == [False, False, False]
    assert can["current"] == [True, False, False]
    assert can["other"] == [True, True, True]
    assert can["base"] == [True, False, True]
    assert can["unloaded"] == [True, False, True]


def test_figures_have_units_and_unknown_ones_are_dashes():
    said = figures([Sample(1.0, 47.36, 3, 0, 0.224, 1.8, 3.5, 0.174)], "en")
    for figure in ("47.4 tok/s", "3 · 0", "0.22 s", "1.80 s", "3.50 s", "17.4%"):
        assert figure in said
    assert "GPU" not in said
    assert figures([Sample(1.0)], "en").count("–") >= 5
    assert "8.5 / 12 GB" in figures([Sample(1.0, gpu_memory_gb=8.5, gpu_total_gb=12.0, gpu_percent=71.0)], "en")
    assert 'class="empty"' in figures([], "zh")


def test_plots_of_a_gpu_are_shown_only_where_there_is_one():
    samples = [Sample(float(at), tokens_per_second=1.0, latency_p50=1.0, latency_p95=2.0) for at in range(0, 60, 2)]

    with gr.Blocks():
        view = PerformanceView(SimpleNamespace(serving=SimpleNamespace(metrics=lambda: samples)), LabelRegistry())
    _, box, *drawn = view.render("en")
    assert box["visible"]
    assert [update["visible"] for update in drawn] == [not plot.needs_gpu for plot in PLOTS]
    latency = next(
        update["value"]
        for update, plot in zip(drawn, PLOTS, strict=True)
        if len(plot.lines) == 2 and "latency" in plot.elem_id
    )
    assert {point[2] for point in latency["data"]} == {"p50", "p95"}
    assert drawn[4]["value"] is None, "nobody knows the cache"


def test_a_timeline_leaves_gaps_out():
    drawn = timeline([1.0, 2.0, 3.0], {"a": [1.0, None, 3.0], "b": [None, 5.0, None]})
    assert drawn["data"] == [[1000, 1.0, "a"], [3000, 3.0, "a"], [2000, 5.0, "b"]]
    assert timeline([1.0], {"a": [None]}) is None
