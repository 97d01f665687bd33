"""Figures, times, tables and plots as a person sees them."""

import pytest

from sage_studio.tasks.compare import MOST
from sage_studio.tasks.task import Curve
from sage_studio.text import verbatim
from sage_studio.training.recipes import DPORecipe
from sage_studio.training.recipes.base import LOSS
from sage_studio.ui.components import format as shown
from sage_studio.ui.components.plots import RUN_COLOURS, histogram, line, loss_of_runs, plotted
from sage_studio.ui.components.table import Column, Row, table
from sage_studio.ui.tasks.tasks_table import sparkline


@pytest.mark.parametrize(
    ("value", "said"), [(5412, "5,412"), (12_000, "12.0 k"), (1_204_118, "1.2 M"), (7.6e9, "7.6 G")]
)
def test_large_counts_are_short(value, said):
    assert shown.compact(value) == said


@pytest.mark.parametrize(
    ("value", "said"), [(0, "–"), (812, "812 B"), (19_600_000, "19.6 MB"), (269_000_000, "269 MB")]
)
def test_sizes_have_units(value, said):
    assert shown.size(value) == said


@pytest.mark.parametrize(("value", "said"), [(None, "–"), (5e-5, "5.0e-5"), (0.0, "0"), (2e-4, "2.0e-4")])
def test_learning_rates_are_written_as_people_write_them(value, said):
    assert shown.rate(value) == said


@pytest.mark.parametrize(
    ("seconds", "en", "zh"),
    [
        (None, "–", "–"),
        (0, "0 s", "0 秒"),
        (59.6, "1 min", "1 分"),
        (3725, "1 h 2 min", "1 小时 2 分"),
        (90000, "1 d 1 h", "1 天 1 小时"),
    ],
)
def test_durations_have_two_units(seconds, en, zh):
    assert (shown.duration(seconds, "en"), shown.duration(seconds, "zh")) == (en, zh)


def test_a_time_is_relative_and_exact_on_hover():
    said = shown.ago(1_000_000.0, "zh", now=1_000_000.0 + 7300)
    assert "2 小时前" in said
    assert 'title="1970-' in said
    assert "刚刚" in shown.ago(1_000_000.0, "zh", now=1_000_001.0)
    assert shown.ago(None, "en") == "–"


def test_long_ids_are_shortened_in_the_middle_and_copied_whole():
    name = "sage-finetuned-1763760000-and-more"
    assert len(shown.short(name)) == 24
    assert f'data-copy="{name}"' in shown.copyable(name, "en")


def test_a_bar_never_leaves_its_frame():
    assert "width:100.0%" in shown.bar(130, "x")
    assert "width:0.0%" in shown.bar(-3, "x")


def test_a_table_aligns_figures_marks_the_picked_row_and_escapes():
    columns = [Column(verbatim("Name", "名称")), Column(verbatim("Rows", "行数"), figures=True)]
    html = table(
        columns, [Row(("<script>", "5"), key='a"b'), Row(("y", "6"), key="c")], "zh", verbatim("T", "表"), picked="c"
    )
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert 'data-key="a&#34;b"' in html
    assert html.count('aria-selected="true"') == 1
    assert '<td class="num">5</td>' in html
    assert "行数" in html


def test_a_row_without_a_key_cannot_be_picked():
    assert "data-key" not in table([Column(verbatim("A", "甲"))], [Row(("x",))], "en", verbatim("T", "表"))


def test_plots_leave_out_steps_without_a_value():
    drawn = line((1, 2, 3), (0.5, None, 0.4))
    assert (drawn["visible"], drawn["value"]["data"]) == (True, [[1, 0.5, ""], [3, 0.4, ""]])
    assert (line((), ())["visible"], line((), ())["value"]) == (False, None)
    assert histogram(((512, 3), (1024, 4)))["value"]["data"] == [["≤ 512", 3], ["≤1024", 4]]


def test_a_plot_of_several_lines_says_which_is_which():
    curve = Curve((1, 2), loss=(2.0, 1.5), figures={"eval_loss": (None, 1.7)})
    drawn = plotted(LOSS, curve, "en")
    assert drawn["value"]["data"] == [[1, 2.0, "training"], [2, 1.5, "training"], [2, 1.7, "hold-out"]]
    assert drawn["label"] == "Loss: training (green), hold-out (orange)"
    assert plotted(LOSS, curve, "zh")["label"] == "损失: 训练 （绿）, 验证 （橙）"
    early = plotted(LOSS, Curve((1,), loss=(2.0,)), "en")
    assert early["label"] == "Loss"
    assert early["value"]["data"] == [[1, 2.0, "training"], [1, None, "hold-out"]]  # or it would never be drawn


def test_runs_have_a_colour_each_and_places_for_more():
    drawn = loss_of_runs([((1, 2), (2.0, None)), ((1,), (3.0,))])
    assert drawn["data"][:2] == [[1, 2.0, "1"], [1, 3.0, "2"]]
    assert drawn["data"][2:] == [[1, None, str(number)] for number in range(3, MOST + 1)]
    assert len(set(RUN_COLOURS)) == MOST
    assert loss_of_runs([]) is None


def test_a_plot_of_what_was_never_measured_is_hidden():
    rewards = DPORecipe.plots[0]
    assert plotted(rewards, Curve((1,), loss=(2.0,)), "en")["visible"] is False
    shown = plotted(rewards, Curve((1,), loss=(2.0,), figures={"rewards/margins": (0.5,)}), "en")
    assert (shown["visible"], shown["label"], shown["value"]["data"][0][:2]) == (True, "Rewards", [1, 0.5])


def test_a_sparkline_falls_with_its_values():
    assert sparkline((3.0, 2.0, 1.0)) == "█▅▁" or sparkline((3.0, 2.0, 1.0)) == "█▄▁"
    assert sparkline((1.0,)) == ""
    assert sparkline((2.0, 2.0)) == "▁▁"
