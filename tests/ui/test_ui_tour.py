"""The tour: shown to a person who comes for the first time, gone for good once closed, back on demand."""

import pytest

from sage_studio.ui.tour import HINTS, SEEN_KEY

pytestmark = pytest.mark.browser

SIZES = {"desktop": (1440, 900), "phone": (390, 844)}
VISITOR = "Object.defineProperty(Navigator.prototype, 'webdriver', {get: () => false})"
"""A browser that is driven sees no tour by itself; a person's says no to this."""
OPEN = ".tour:popover-open"


@pytest.fixture
def visit(browser, address):
    contexts = []

    def open_page(size: str = "desktop", language: str = "en", person: bool = True):
        width, height = SIZES[size]
        locale = {"en": "en-US", "zh": "zh-CN"}[language]
        context = browser.new_context(
            locale=locale, viewport={"width": width, "height": height}, reduced_motion="reduce"
        )
        contexts.append(context)
        if person:
            context.add_init_script(VISITOR)
        tab = context.new_page()
        tab.faults = []
        tab.on("pageerror", lambda error: tab.faults.append(str(error)))
        tab.goto(address)
        tab.wait_for_selector("#status-bar [data-tour]")
        return tab

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("size", SIZES)
def test_a_first_visit_is_led_through_the_main_job_by_keyboard(visit, size, language):
    tab = visit(size, language)
    tab.wait_for_selector(OPEN)
    width, height = SIZES[size]
    for place, hint in enumerate(HINTS):
        tab.wait_for_selector(f"{OPEN} >> text={hint.title.in_(language)}")
        tab.wait_for_selector(f"#{hint.tab}[role=tabpanel]", state="visible")
        tab.wait_for_selector(".outlined")
        gpu, target = tab.locator(OPEN).bounding_box(), tab.locator(".outlined").bounding_box()
        assert gpu["x"] >= 0 <= gpu["y"]
        assert gpu["x"] + gpu["width"] <= width
        assert gpu["y"] + gpu["height"] <= height
        beside = target["x"] + target["width"] <= gpu["x"] or gpu["y"] + gpu["height"] <= target["y"]
        assert beside or target["y"] < gpu["y"], "the card hides what it speaks of"
        assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert tab.evaluate("document.activeElement.dataset.go") == "next"
        assert tab.locator("[data-go=back]").is_visible() == (place > 0)
        tab.keyboard.press("Enter")
    tab.wait_for_selector(OPEN, state="hidden")
    tab.wait_for_selector("#dataset[role=tabpanel]", state="visible")
    tab.wait_for_function("document.querySelector('#dataset-source').contains(document.activeElement)")
    assert tab.locator(".outlined").count() == 0
    assert tab.faults == []


@pytest.mark.parametrize("way", ["Escape", "skip"])
def test_once_closed_it_stays_away_and_comes_back_on_demand(visit, way):
    tab = visit()
    tab.wait_for_selector(OPEN)
    if way == "skip":
        tab.click("[data-go=skip]")
    else:
        tab.keyboard.press("Escape")
    tab.wait_for_selector(OPEN, state="hidden")
    assert tab.evaluate("document.activeElement.hasAttribute('data-tour')"), "focus goes where the tour is found again"
    tab.reload()
    tab.wait_for_selector("#dataset-list tr[data-key]")
    assert not tab.is_visible(OPEN)
    tab.click("#chat-button")
    tab.click("[data-tour]")
    tab.wait_for_selector(f"{OPEN} >> text={HINTS[0].title.en}")
    tab.wait_for_selector("#dataset[role=tabpanel]", state="visible")
    tab.click("[data-go=next]")
    tab.wait_for_selector("#train[role=tabpanel]", state="visible")
    tab.click("[data-go=back]")
    tab.wait_for_selector("#dataset[role=tabpanel]", state="visible")
    assert tab.evaluate("document.activeElement.dataset.go") == "next", "the button that had the focus is gone"


def test_a_reload_in_the_middle_shows_it_again(visit):
    tab = visit()
    tab.wait_for_selector(OPEN)
    tab.reload()
    tab.wait_for_selector(OPEN)


def test_the_page_can_be_used_beside_it(visit):
    tab = visit()
    tab.wait_for_selector(OPEN)
    tab.click("#models-button")
    tab.wait_for_selector("#models-table")
    assert tab.is_visible(OPEN)


def test_it_is_shown_again_to_a_browser_without_memory_but_not_where_storage_is_closed(visit, browser, address):
    context = browser.new_context()
    context.add_init_script(VISITOR)
    context.add_init_script("Object.defineProperty(window, 'localStorage', {get() { throw new Error('closed') }})")
    tab = context.new_page()
    tab.goto(address)
    tab.wait_for_selector("#dataset-list tr[data-key]")
    assert not tab.is_visible(OPEN)
    tab.click("[data-tour]")
    tab.wait_for_selector(OPEN)
    tab.click("[data-go=skip]")
    tab.wait_for_selector(OPEN, state="hidden")
    context.close()


def test_a_driven_browser_is_left_alone_until_it_asks(visit):
    tab = visit(person=False)
    tab.wait_for_selector("#dataset-list tr[data-key]")
    assert not tab.is_visible(OPEN)
    assert tab.evaluate(f"localStorage.getItem('{SEEN_KEY}')") is None
    tab.click("[data-tour]")
    tab.wait_for_selector(OPEN)


def test_axe_finds_nothing_in_any_hint(visit):
    from axe_playwright_python.sync_playwright import Axe

    for language in ("en", "zh"):
        tab = visit("phone", language)
        tab.wait_for_selector(OPEN)
        for hint in HINTS:
            tab.wait_for_selector(f"{OPEN} >> text={hint.title.in_(language)}")
            results = Axe().run(tab)
            assert not results.violations_count, results.generate_report()
            tab.click("[data-go=next]")
