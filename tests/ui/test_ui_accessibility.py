"""What everybody needs of the page: axe finds nothing, no field is wrong before it was touched, one title a page."""

import pytest
from fake_studio import FakeStudio
from serving_page import served

pytestmark = pytest.mark.browser

LOCALES = {"zh": "zh-CN", "en": "en-US"}
TABS = ("dataset", "train", "tasks", "chat", "models")
WITHIN = {"dataset": ("report", "preview", "combine", "augment")}
DONE = "finetune-1763760000"
THEMES = {
    "light": {"resultTypes": ["violations"]},
    "dark": {"resultTypes": ["violations"], "runOnly": ["color-contrast"]},
}
STILL = "*, ::before, ::after { transition: none !important; animation: none !important; }"
"""Or axe would measure a colour that is on its way to another."""


@pytest.fixture(scope="module")
def places(fake, address, tmp_path_factory):
    """A page with everything in it, and one with nothing."""
    from sage_studio.settings import load_settings

    empty = FakeStudio(load_settings(home=tmp_path_factory.mktemp("empty-home")), empty=True)
    fake.serving.use_task(DONE)
    fake.datasets.inspect(fake.datasets.kept[0].id, model="m", max_length=1024)
    with served(empty) as url:
        yield {"filled": address, "empty": url}


@pytest.fixture
def opened(browser, places):
    contexts = []

    def open_page(what: str, language: str = "en", theme: str = "light", width: int = 1440, height: int = 900):
        context = browser.new_context(
            locale=LOCALES[language],
            viewport={"width": width, "height": height},
            color_scheme=theme,
            reduced_motion="reduce",
        )
        contexts.append(context)
        tab = context.new_page()
        tab.goto(f"{places[what]}?__theme={theme}")
        tab.wait_for_selector("#status-bar h1")
        tab.add_style_tag(content=STILL)
        return tab

    yield open_page
    for context in contexts:
        context.close()


def walk(tab):
    """Opens every tab, every tab within a tab, and all accordions; says each time what is in sight."""
    for name in TABS:
        tab.click(f"#{name}-button")
        tab.wait_for_selector(f"#{name}[role=tabpanel]", state="visible")
        for inner in WITHIN.get(name, ("",)):
            if inner:
                tab.click(f"#{name}-tab-{inner}-button")
                tab.wait_for_selector(f"#{name}-tab-{inner}[role=tabpanel]", state="visible")
                pick(tab, f"#{name}-{inner} tr[data-key]")
            if name == "tasks":
                pick(tab, "#tasks-table tr[data-key]")
            unfold(tab, name)
            yield f"{name} {inner}".strip()
        if name == "chat":
            tab.check("#chat-compare input")
            tab.wait_for_selector("#compare-columns .empty", state="visible")
            yield "chat compare"
            tab.uncheck("#chat-compare input")


def pick(tab, row: str) -> None:
    """The first row, where there is one, so that what belongs to it is in sight."""
    if tab.locator(row).count():
        tab.locator(row).first.click()
        tab.wait_for_selector(f"{row}[aria-selected=true]")


def unfold(tab, name: str) -> None:
    """Every accordion and every fold in a tab."""
    closed = tab.locator(f"#{name} button.label-wrap:not(.open) >> visible=true")
    while closed.count():
        closed.first.click()
    tab.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")


@pytest.mark.parametrize("what", ["filled", "empty"])
@pytest.mark.parametrize("language", LOCALES)
def test_axe_finds_nothing_on_any_tab(opened, language, what):
    """Everything in the light; in the dark what only the theme changes, the contrast, at the same places."""
    from axe_playwright_python.sync_playwright import Axe

    axe, tab = Axe(), opened(what, language)
    found = {}
    for place in walk(tab):
        for theme, options in THEMES.items():
            tab.evaluate("theme => document.body.classList.toggle('dark', theme === 'dark')", theme)
            results = axe.run(tab, options=options)
            if results.violations_count:
                found[f"{place}, {theme}"] = results.generate_report()
        tab.evaluate("document.body.classList.remove('dark')")
    assert not found, "\n\n".join(f"=== {place}\n{report}" for place, report in found.items())


@pytest.mark.parametrize("language", LOCALES)
def test_axe_finds_nothing_on_a_page_that_opens_in_the_dark(opened, language):
    from axe_playwright_python.sync_playwright import Axe

    tab = opened("filled", language, "dark")
    assert tab.evaluate("document.body.classList.contains('dark')")
    results = Axe().run(tab)
    assert not results.violations_count, results.generate_report()


@pytest.mark.parametrize("what", ["filled", "empty"])
def test_no_field_is_wrong_before_anything_was_typed(opened, what):
    tab = opened(what)
    wrong = "[...document.querySelectorAll('input:invalid, textarea:invalid')].map((each) => each.closest('[id]').id)"
    assert {place: names for place in walk(tab) if (names := tab.evaluate(wrong))} == {}


def test_the_page_has_one_title_and_says_its_language(opened):
    for language, said in (("en", "en"), ("zh", "zh-CN")):
        tab = opened("empty", language)
        for _ in walk(tab):
            assert tab.locator("h1").count() == 1
        assert tab.inner_text("h1") == "SAGE Studio"
        assert tab.get_attribute("html", "lang") == said


@pytest.mark.parametrize("language", LOCALES)
def test_every_empty_place_leads_on(opened, language):
    tab = opened("empty", language)
    met = set()
    for place in walk(tab):
        empties = tab.locator(".empty >> visible=true")
        for at in range(empties.count()):
            met.add(place)
            assert empties.nth(at).locator("button[data-lead]").count() == 1, f"{place}: {empties.nth(at).inner_text()}"
            assert len(empties.nth(at).inner_text()) > 20
    assert met >= {f"dataset {inner}" for inner in WITHIN["dataset"]} | {"train", "tasks", "chat compare", "models"}


def test_the_lead_of_an_empty_place_does_what_it_says(browser, tmp_path):
    from sage_studio.settings import load_settings

    studio = FakeStudio(load_settings(home=tmp_path), empty=True)
    with served(studio) as url:
        context = browser.new_context()
        tab = context.new_page()
        tab.goto(url)
        tab.click("#tasks-button")
        tab.click("#tasks-table .lead")
        tab.wait_for_function("document.querySelector('#train-missing').contains(document.activeElement)")
        tab.click("#run-empty .lead")
        tab.wait_for_selector("#dataset-list tr[data-key]")
        assert len(studio.datasets.kept) == 1
        tab.click("#dataset-tab-combine-button")
        tab.click("#combine-note .lead")
        tab.wait_for_function("document.querySelector('#dataset-source').contains(document.activeElement)")
        tab.click("#models-button")
        tab.click("#models-table .lead")
        tab.wait_for_function("!document.querySelector('#models-table .lead')")
        assert studio.serving.engine_started is not None
        context.close()
