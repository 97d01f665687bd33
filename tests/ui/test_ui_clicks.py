"""A click answers before the server does: what was clicked is busy, a picked row is picked, and both are taken back.

The server is held back by the browser: requests wait until the test lets them go, so nothing here depends on time.
"""

import pytest

from sage_studio.errors import Conflict
from sage_studio.text import verbatim

pytestmark = pytest.mark.browser

DONE, OTHER = "finetune-1763760000", "finetune-1763750000"


class Held:
    """Requests of a page that wait for `let_go` or `refuse`."""

    def __init__(self, tab):
        self.tab, self.waiting, self.holds = tab, [], True
        tab.route("**/gradio_api/**", self.keep)

    def keep(self, route):
        if self.holds:
            self.waiting.append(route)
        else:
            route.continue_()

    def let_go(self):
        """Let them reach the studio in the order in which they were sent: together, one may overtake another."""
        self.holds = False
        for route in self.waiting:
            with self.tab.expect_response(lambda answer, asked=route.request: answer.request == asked):
                route.continue_()

    def refuse(self):
        self.holds = False
        for route in self.waiting:
            route.fulfill(status=500, content_type="application/json", body='{"detail": "down"}')


@pytest.fixture
def opened(browser, address):
    contexts = []

    def open_page(**options):
        settings = {"locale": "en-US", "viewport": {"width": 1440, "height": 900}, **options}
        context = browser.new_context(**settings)
        contexts.append(context)
        tab = context.new_page()
        tab.goto(address)
        tab.wait_for_selector("#status-bar .brand")
        return tab

    yield open_page
    for context in contexts:
        context.close()


def at_tasks(tab):
    tab.click("#tasks-button")
    tab.wait_for_selector(f"#tasks-table tr[data-key='{DONE}']")


def row(key):
    return f"#tasks-table tr[data-key='{key}']"


def marks(tab, selector):
    """``aria-selected`` and ``aria-busy``, as they are this moment."""
    return tab.evaluate(
        "selector => { const e = document.querySelector(selector);"
        " return [e.getAttribute('aria-selected'), e.getAttribute('aria-busy')]; }",
        selector,
    )


def start_button(tab):
    tab.click("#train-button")
    tab.wait_for_selector("#train-start:enabled", state="visible")
    return "#train-start"


def test_a_row_is_picked_and_busy_before_the_server_knows(opened):
    tab = opened()
    at_tasks(tab)
    held = Held(tab)
    tab.click(f"{row(DONE)} td:nth-child(2)")
    assert marks(tab, row(DONE)) == ["true", "true"]
    held.let_go()
    tab.wait_for_selector(f"{row(DONE)}[aria-selected=true]:not([aria-busy])")
    tab.wait_for_function(f"location.search.includes('task={DONE}')")


def test_of_two_picks_the_last_one_counts(opened):
    tab = opened()
    at_tasks(tab)
    held = Held(tab)
    tab.click(f"{row(DONE)} td:nth-child(2)")
    tab.click(f"{row(OTHER)} td:nth-child(2)")
    assert marks(tab, row(OTHER))[0] == "true", "the last one counts"
    assert marks(tab, row(DONE)) == ["false", None]
    held.let_go()
    tab.wait_for_selector(f"{row(OTHER)}[aria-selected=true]:not([aria-busy])")
    tab.wait_for_function(f"location.search.includes('task={OTHER}')")
    assert marks(tab, row(DONE)) == ["false", None]


def test_a_row_picked_by_key_answers_alike(opened):
    tab = opened()
    at_tasks(tab)
    held = Held(tab)
    tab.focus(row(DONE))
    tab.keyboard.press("Enter")
    assert marks(tab, row(DONE)) == ["true", "true"]
    held.let_go()
    tab.wait_for_selector(f"{row(DONE)}[aria-selected=true]:not([aria-busy])")


def test_a_pick_that_is_refused_is_given_back(opened):
    tab = opened()
    at_tasks(tab)
    tab.click(f"{row(DONE)} td:nth-child(2)")
    tab.wait_for_function(f"location.search.includes('task={DONE}')")
    tab.wait_for_selector(f"{row(DONE)}[aria-selected=true]:not([aria-busy])")
    held = Held(tab)
    tab.click(f"{row(OTHER)} td:nth-child(2)")
    assert marks(tab, row(OTHER)) == ["true", "true"]
    tab.wait_for_timeout(1)
    held.refuse()
    tab.wait_for_selector(f"{row(OTHER)}[aria-selected=false]:not([aria-busy])")
    assert marks(tab, row(DONE))[0] == "true"


def test_start_is_busy_at_once_and_takes_one_click(opened, fake):
    tab = opened(viewport={"width": 390, "height": 844})
    button, before = start_button(tab), len(fake.tasks.list())
    held = Held(tab)
    tab.click(button)
    assert marks(tab, button)[1] == "true"
    assert tab.get_attribute(button, "aria-disabled") == "true"
    assert tab.evaluate("getComputedStyle(document.querySelector('#train-start'), '::after').content") != "none"
    assert marks(tab, "#train-run")[1] == "true", "the place where the run will stand"
    tab.click(button, force=True)
    held.let_go()
    tab.wait_for_selector(f"{button}:not([aria-busy]):not([aria-disabled])")
    tab.wait_for_selector("#train-run:not([aria-busy])")
    assert len(fake.tasks.list()) == before + 1
    tab.wait_for_function("document.querySelector('#run-head').getBoundingClientRect().top < innerHeight")
    del fake.tasks.kept[0]


def test_a_button_whose_event_fails_is_free_again(opened, fake, monkeypatch):
    def refuse(_):
        raise Conflict(verbatim("No room.", "没有空间。"))

    monkeypatch.setattr(fake.training, "start", refuse)
    tab = opened()
    button = start_button(tab)
    tab.click(button)
    tab.wait_for_selector("text=No room.")
    tab.wait_for_selector(f"{button}:not([aria-busy]):not([aria-disabled])")
    tab.wait_for_selector("#train-run:not([aria-busy])")


def test_after_a_yes_what_opened_the_dialog_is_busy(opened):
    tab = opened()
    at_tasks(tab)
    tab.click(f"{row(DONE)} td:nth-child(2)")
    tab.click("#task-backend")
    tab.wait_for_selector("#dialog-backend dialog[open]")
    tab.wait_for_selector("#task-backend:not([aria-busy])")
    held = Held(tab)
    tab.click("#dialog-backend [data-answer=ok]")
    tab.wait_for_function("document.querySelector('#task-backend').getAttribute('aria-busy') === 'true'")
    held.let_go()
    tab.wait_for_selector("#backend-notice >> text=Switched to the tuned model")
    tab.wait_for_selector("#task-backend:not([aria-busy])", state="attached")


def test_paging_and_language_answer_at_once(opened):
    tab = opened()
    tab.click("#dataset-tab-preview-button >> visible=true")
    tab.wait_for_selector("#dataset-preview tr[data-key]")
    held = Held(tab)
    tab.click("#dataset-next")
    assert marks(tab, "#dataset-next")[1] == "true"
    assert marks(tab, "#dataset-preview")[1] == "true"
    held.let_go()
    tab.wait_for_selector("#dataset-next:not([aria-busy])")
    tab.evaluate("location.reload = () => {}")
    busy = tab.evaluate(
        "() => { const b = document.querySelector('[data-language]'); b.click(); return b.getAttribute('aria-busy'); }"
    )
    assert busy == "true"
    tab.context.clear_cookies()


def test_nothing_turns_where_motion_is_reduced(opened):
    tab = opened(reduced_motion="reduce")
    button = start_button(tab)
    held = Held(tab)
    tab.click(button)
    assert marks(tab, button)[1] == "true"
    running = (
        "document.getAnimations().filter((each) => each instanceof CSSAnimation"
        " && each.effect.target.closest('[aria-busy]')).length"
    )
    assert tab.evaluate(running) == 0
    held.refuse()


def test_what_answers_by_itself_is_never_busy(opened):
    tab = opened()
    tab.click("[data-tour]")
    tab.wait_for_selector("[data-go=skip]", state="visible")
    tab.click("[data-go=skip]")
    tab.wait_for_selector("[data-go=skip]", state="hidden")
    assert tab.evaluate("document.querySelectorAll('#status-bar [aria-busy=true]').length") == 0


def test_copying_an_id_asks_nobody(opened):
    tab = opened()
    at_tasks(tab)
    tab.click(f"{row(DONE)} [data-copy]")
    assert tab.evaluate("document.querySelectorAll('#tasks-table [aria-busy]').length") == 0
