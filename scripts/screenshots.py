"""Take the README's screenshots of a running studio, whatever is in it: every tab, both languages, wide and narrow.

    python scripts/screenshots.py http://127.0.0.1:7860 [folder]

Picks the newest dataset, run and completed task, asks one question in the chat, and the same of all models (up to four)
in a comparison. Needs Chromium and Playwright.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

PROJECT = Path(__file__).resolve().parent.parent
SIZES = {"": {"width": 1440, "height": 900}, "-narrow": {"width": 390, "height": 844}}
LOCALES = {"en": "en-US", "zh": "zh-CN"}
QUESTION = {"en": "What is SAGE?", "zh": "SAGE 是什么？"}
TABS = ("dataset", "preview", "combine", "train", "tasks", "models", "chat", "compare")
WITHIN = {"preview": "dataset", "combine": "dataset", "compare": "chat"}
"""What stands within which tab."""
SEEN = {"dataset": "#dataset-histogram", "preview": "#dataset-preview"}
"""What a picture begins with, where it is not the top of the page."""
MOST = 4
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
ANSWER_MS = 180_000


def main() -> None:
    """Take them all."""
    url = sys.argv[1]
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else PROJECT / "docs" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        for language in LOCALES:
            for suffix in SIZES:
                shoot(browser, url, language, suffix, folder)
        browser.close()


def shoot(browser: Browser, url: str, language: str, suffix: str, folder: Path) -> None:
    """Every tab in one language at one size."""
    page = browser.new_context(locale=LOCALES[language], viewport=SIZES[suffix], device_scale_factor=1).new_page()
    page.goto(url)
    for tab in TABS:
        open_tab(page, tab)
        fill(page, tab, language)
        page.screenshot(path=folder / f"{tab}-{language}{suffix}.png")
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        print(f"{tab}-{language}{suffix}: {overflow} px sideways")
    page.context.close()


def open_tab(page: Page, tab: str) -> None:
    """Show a tab and wait until it stands still."""
    page.locator(f"#{WITHIN.get(tab, tab)}-button").first.click()
    if WITHIN.get(tab) == "dataset":
        page.locator(f"#dataset-tab-{tab}-button").click()
    page.wait_for_timeout(2500)


def fill(page: Page, tab: str, language: str) -> None:
    """Pick or say something, so that the tab shows what it is for."""
    rows = {
        "dataset": "#dataset-list tr[data-key]:has-text('sage-docs')",
        "preview": "#dataset-preview tr[data-key]",
        "tasks": "#tasks-table tr[data-key^=finetune]:has-text('✅')",
    }
    if tab in rows and page.locator(rows[tab]).count():
        page.locator(rows[tab]).first.click()
        page.wait_for_timeout(3000)
        page.evaluate("window.scrollTo(0, 0)")
    if tab == "dataset":
        page.locator("#dataset-check").click()
        page.locator("#check-stop").wait_for()
        page.locator("#check-stop").wait_for(state="hidden", timeout=ANSWER_MS)
        page.wait_for_timeout(1500)
    if tab == "combine":
        for slot in (1, 2):
            page.locator(f"#combine-dataset-{slot} input").click()
            page.locator(f"#combine-dataset-{slot} [role=option]").nth(-slot).click()
            page.wait_for_timeout(1000)
        page.evaluate("window.scrollTo(0, 0)")
    if tab in SEEN:
        page.evaluate("id => document.querySelector(id).scrollIntoView()", SEEN[tab])
    if tab == "chat":
        page.locator("#chat-settings").get_by_role("button").first.click()
        page.locator("#chat-max-tokens input[type=number]").fill("40")
        page.locator("#chat-settings").get_by_role("button").first.click()
        page.locator("#chat-message textarea").fill(QUESTION[language])
        page.locator("#chat-send").click()
        page.locator("#chat-messages .answered-by", has_text="tok/s").first.wait_for(timeout=ANSWER_MS)
    if tab == "compare":
        compare(page, language)


def compare(page: Page, language: str) -> None:
    """Ask every model, up to as many as may be compared."""
    page.locator("#chat-compare input").check()
    page.wait_for_timeout(1500)
    while page.locator("#compare-models .token").count() < MOST:
        page.locator("#compare-models input").focus()  # on a phone the tokens lie over it
        left = page.get_by_role("option", selected=False)
        if not left.count():
            break
        left.first.click()
    page.keyboard.press("Escape")
    page.locator("#compare-message textarea").fill(QUESTION[language])
    page.locator("#compare-send").click()
    page.locator(".reply").first.wait_for()
    page.wait_for_function("!document.querySelector('.reply[aria-busy=true]')", timeout=ANSWER_MS)
    page.wait_for_timeout(500)


if __name__ == "__main__":
    main()
