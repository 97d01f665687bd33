"""Downloads on the Models tab: the progress of each, with buttons to cancel or resume.

Complete ones are not shown.
"""

import gradio as gr
from markupsafe import Markup

from sage_studio.downloads import Download, DownloadState
from sage_studio.text import Language, Text
from sage_studio.ui.components.events import follow, on
from sage_studio.ui.components.format import bar
from sage_studio.ui.components.html import html, strong
from sage_studio.ui.components.page_context import PageContext
from sage_studio.ui.components.progress import transfer_line
from sage_studio.ui.components.table import picked_key

TITLE = Text("Downloads")
CANCEL, GO_ON = Text("Cancel the download"), Text("Continue the download")
STATE = {
    DownloadState.RUNNING: "running",
    DownloadState.STOPPED: "idle",
    DownloadState.FAILED: "failed",
}
VERB_JS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-download]');
  if (button) trigger('select', {key: button.dataset.download});
});
"""


class DownloadsPanel:
    """Empty while there is nothing to see."""

    def __init__(self, context: PageContext) -> None:
        self.studio = context.studio
        self.html = html("models-downloads", VERB_JS)
        follow([*context.ticks], self.show, [], [self.html])
        on(self.html.select, self.change, context.revision, context.revision)

    def show(self, language: Language) -> tuple[Markup]:
        """All downloads that are not complete."""
        return (downloads_list(self.studio.models.downloads(), language),)

    def change(self, _: Language, revision: int, event: gr.EventData) -> int:
        """Cancel the one whose button was pressed, or go on with it."""
        verb, name = picked_key(event).split(":", 1)
        (self.studio.models.cancel_download if verb == "cancel" else self.studio.models.download)(name)
        return revision + 1


def downloads_list(downloads: list[Download], language: Language) -> Markup:
    """Each download with its bar and its button; empty without any."""
    shown = [each for each in downloads if each.state in STATE]
    if not shown:
        return Markup()
    return Markup("<h2 class=minor>{}</h2>{}").format(
        TITLE.in_(language), Markup().join(_one(each, language) for each in shown)
    )


def _one(download: Download, language: Language) -> Markup:
    running = download.state is DownloadState.RUNNING
    verb, word = ("cancel", CANCEL) if running else ("go-on", GO_ON)
    transfer = download.transfer
    percent = 100 * transfer.done / transfer.total if transfer.total else 0.0
    message = transfer_line(transfer, language)
    why = " ".join(part for part in (download.message.in_(language), download.hint.in_(language)) if part)
    return Markup(
        '<div class="notice {}"><div>{} {}</div>{}<div class="quiet">{}</div>'
        '<button type="button" class="vote" data-download="{}:{}" aria-label="{} {}">{}</button></div>'
    ).format(
        STATE[download.state],
        strong(download.name),
        message if running else "",
        bar(percent, message, "running" if running else ""),
        why,
        verb,
        download.name,
        word.in_(language),
        download.name,
        word.in_(language),
    )
