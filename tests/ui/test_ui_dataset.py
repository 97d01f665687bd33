"""The Dataset tab's panels: what each says of a report, of a row as the model sees it, and of the jobs; and a walk."""

import pytest
from fake_studio import FakeStudio
from waiting import wait_until

from sage_studio.data.dataset import DatasetStats
from sage_studio.data.jobs import JobState
from sage_studio.data.rows import Message, Origin, Passage, Preference, Retrieval
from sage_studio.errors import InvalidInput
from sage_studio.training.preview import PreviewSpan, RowPreview
from sage_studio.ui.datasets.augment_panel import jobs_table, show_part
from sage_studio.ui.datasets.combine_panel import SLOTS, show_slots
from sage_studio.ui.datasets.dataset_report import datasets_table, languages_of
from sage_studio.ui.datasets.preview_panel import add_exclusion, coloured, row_number, show_pending, texts_of
from sage_studio.ui.datasets.report_panel import findings_view


@pytest.mark.parametrize(("language", "said"), [("en", "12 only read"), ("zh", "仅作上下文 12")])
def test_pieces_are_coloured_by_their_fate_and_escaped(language, said):
    pieces = (
        PreviewSpan("<|im_start|><script>", 12, "read"),
        PreviewSpan("二", 2, "learned"),
        PreviewSpan("tail", 3, "cut"),
    )
    shown = coloured(RowPreview("completion", pieces, (), (), 17, False), language)
    assert '<span class="token learned" title="2">二</span>' in shown
    assert '<span class="token cut" title="3">tail</span>' in shown
    assert "&lt;script&gt;" in shown
    assert "<script>" not in shown
    assert (said in shown) or (language == "en" and "only read 12" in shown)


def test_a_row_that_the_training_skips_says_so():
    shown = coloured(RowPreview("chosen", (), (), (), 0, True), "en")
    assert "left out of the training" in shown
    assert "chosen" in shown


def test_the_texts_of_every_kind_of_row_can_be_changed():
    prompt = (Message("user", "q"),)
    assert texts_of(Preference(prompt, "c", "r", Origin("x"))) == ("q", "c", "r")
    assert texts_of(Retrieval("q", ("p",), (), Origin("x"))) == ("q", "p", None)
    assert texts_of(Passage("t", Origin("x"))) == (None, "t", None)


def test_changes_wait_until_they_are_saved():
    changes = add_exclusion("en", 4, [{"row": 4, "answer": "a"}, {"row": 2, "answer": "b"}])
    assert changes == [{"row": 2, "answer": "b"}, {"row": 4, "exclude": True}]
    box, said = show_pending("en", changes)
    assert box["visible"]
    assert "1 rows changed, 1 left out" in said
    assert show_pending("en", [])[0]["visible"] is False


def test_the_next_slot_shows_when_one_is_filled():
    def visible(*picked):
        return [update["visible"] for update in show_slots("en", *picked, *[""] * (SLOTS - len(picked)))]

    assert visible() == [True, True, *[False] * (SLOTS - 2)]
    assert visible("a", "b")[:4] == [True, True, True, False]
    assert visible("", "", "c")[:5] == [True, True, True, True, False]


def test_the_close_look_shows_figures_rows_and_links():
    fake = FakeStudio()
    fake.datasets.inspect("sage-docs-v3", model="m", max_length=512)
    shown = findings_view(fake.datasets.inspection("sage-docs-v3"), 12_042.0, "en")
    for part in ("Longer than 512", "1,873", "0.4 %", "nearly the same as an earlier row", "14, 310", "about 3.5 h"):
        assert part in shown, part
    assert "Time per epoch</dt><dd>–" in findings_view(fake.datasets.inspection("sage-docs-v3"), None, "en")


def test_the_list_says_which_datasets_were_checked():
    fake = FakeStudio()
    assert "✓" not in datasets_table(fake.datasets.list(), "", "en")
    assert datasets_table(fake.datasets.list(), "", "en", {"support-v1"}).count("✓") == 1


def test_languages_of_a_sample_are_shares():
    told = {"en": 14_398, "zh": 10_602}
    exact, sampled = (DatasetStats(25_000, 0, 0.0, 0, 0, languages=told, languages_are_exact=e) for e in (True, False))
    assert languages_of(exact, "en") == "English 14,398\nChinese 10,602"
    assert languages_of(sampled, "zh") == "英文 58%\n中文 42%"


def test_jobs_show_how_they_stand():
    fake = FakeStudio()
    fake.datasets.augment(dataset_id="a-v1")
    shown = jobs_table(fake.datasets.list_jobs(), "augment-1", "en")
    assert 'aria-selected="true"' in shown
    assert "20 / 64" in shown
    assert 'role="progressbar"' in shown
    assert "progressbar" not in jobs_table([fake.datasets.stop_job("augment-1")], "", "en")
    assert 'class="empty"' in jobs_table([], "", "zh")
    assert show_part("en", "annotate")[0]["visible"] is False


@pytest.mark.parametrize(("typed", "row"), [("47", 47), (" 1 ", 1), ("5,412", 5412), ("1 000", 1000)])
def test_a_row_number_is_read_as_people_write_it(typed, row):
    assert row_number(typed, 5412) == row


@pytest.mark.parametrize("typed", ["0", "-1", "5413", "seven", "1.5", "1e3", "²", "9" * 400])
def test_a_row_that_is_none_is_refused_with_the_range(typed):
    with pytest.raises(InvalidInput) as caught:
        row_number(typed, 5412)
    assert typed in caught.value.message.en
    assert "1 to 5,412" in caught.value.hint.en
    assert "5,412" in caught.value.hint.zh


def changed(page, answer):
    """Whether a change stands in the list; a form still being laid out may drop what was typed, so type it again."""
    box = page.locator("#row-answer textarea")
    if box.input_value() != answer:
        box.fill(answer)
    page.locator("#row-change").click()
    page.wait_for_timeout(2000)
    return page.locator("#row-pending .notice").is_visible()


@pytest.mark.browser
def test_a_walk_through_the_panels(fake, address, browser):
    context = browser.new_context(locale="en-US", viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(address)
    page.locator("#dataset-list tr[data-key]").first.click()

    def tab(name):
        if not page.locator(f"#dataset-tab-{name}-button").is_visible():
            page.locator("#dataset-tabs .overflow-menu button").first.click()
        page.locator(f"#dataset-tab-{name}-button").locator("visible=true").click()

    page.locator("#dataset-check").click()
    page.locator("#dataset-findings tr", has_text="nearly the same").wait_for()
    page.locator("#dataset-histogram svg text", has_text="≤ 500").wait_for()

    tab("preview")
    page.locator("#dataset-search input, #dataset-search textarea").first.fill("nowhere to be found")
    page.locator("#dataset-preview", has_text="No row matches").wait_for()
    page.locator("#dataset-goto input").fill("47")
    page.locator("#dataset-goto input").press("Enter")
    page.locator("#dataset-preview tr[data-key='47']").wait_for()
    page.locator("#row-seen h2", has_text="Row 47").wait_for()
    page.locator("#dataset-next").click()
    page.locator("#dataset-preview tr[data-key='64']").wait_for()
    page.locator("#dataset-next").click()
    page.locator("#dataset-goto input").fill("1")
    page.locator("#dataset-goto input").press("Enter")
    page.locator("#dataset-preview tr[data-key='2']").click()
    page.locator("#row-seen .token.learned").first.wait_for()
    page.locator("#row-edit").get_by_role("button").first.click()
    wait_until(lambda: changed(page, "better"))
    page.locator("#row-save").click()
    page.locator("#row-pending .notice").wait_for(state="hidden")
    assert fake.datasets.edited == [{"row": 2, "answer": "better"}]

    tab("combine")
    for slot in (1, 2):
        page.locator(f"#combine-dataset-{slot} input").click()
        page.locator(f"#combine-dataset-{slot} [role=option]").nth(slot).click()
    page.locator("#combine-dataset-3").wait_for()
    page.locator("#combine-start").click()
    page.locator("#dataset-list tr", has_text="combined").wait_for()
    assert [portion["weight"] for portion in fake.datasets.combined[:2]] == [1, 1]

    tab("augment")
    page.locator("#augment-start").click()
    page.locator("#dataset-jobs [role=progressbar]").wait_for()
    page.locator("#job-stop").click()
    page.locator("#job-resume").wait_for()
    assert fake.datasets.list_jobs()[0].state is JobState.STOPPED
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0
    context.close()
