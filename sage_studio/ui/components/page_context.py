"""What every tab of the page shares: the studio, labels, tabs, and what a person has chosen.

The chosen task stands in the page's address too, so that a refresh or a link shows the same task.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from sage_studio.studio import Studio
from sage_studio.text import Language
from sage_studio.ui.components.events import on
from sage_studio.ui.components.html import html
from sage_studio.ui.components.localization import LabelRegistry

ADDRESS_JS = """
watch('value', () => {
  const url = new URL(window.location), task = props.value;
  if (task) url.searchParams.set('task', task); else url.searchParams.delete('task');
  window.history.replaceState(null, '', url);
});
"""


@dataclass(frozen=True)
class PageContext:
    """Made once per page, before its tabs.

    Attributes:
        timer: ticks while the page is open; a tab's own only while the tab is the one that is seen.
        seen: the event that the tab comes into view; none for what stands above the tabs.
        load: the page's load event.
        task: id of the task a person looks at; empty for "whatever runs".
        dataset: id of the dataset a person looks at; empty for the newest.
        draft: fields of a recipe that the Train tab's form is to take over; None for none.
        revision: grows whenever this page has changed something, so that its views renew themselves at once.
    """

    studio: Studio
    words: LabelRegistry
    tabs: gr.Tabs
    timer: gr.Timer
    page: gr.Blocks
    task: gr.State
    dataset: gr.State
    revision: gr.State
    draft: gr.State
    seen: tuple[object, ...] = ()

    @property
    def ticks(self) -> list[object]:
        """When a view is refreshed."""
        return [self.page.load, self.timer.tick, self.revision.change, *self.seen]

    def within(self, tab: gr.Tab, timer: gr.Timer) -> "PageContext":
        """The context for one tab, with a timer of its own."""
        return replace(self, timer=timer, seen=(tab.select,))

    def remember_task(self) -> None:
        """Keep the chosen task in the page's address, and take it from there when the page opens."""
        address = html("address", ADDRESS_JS, elem_classes="dialog-host")
        self.page.load(_task_in_address, None, self.task, api_visibility="private", show_progress="hidden")
        on(self.task.change, same, self.task, address, queue=False)


def same(_: Language, value: str) -> str:
    """The value itself."""
    return value


def dataset_or_newest(studio: Studio, chosen: str) -> str:
    """Id of the chosen dataset, else of the newest; empty where there is none."""
    known = [item.id for item in studio.datasets.list()]
    return chosen if chosen in known else next(iter(known), "")


def go_to(tab: str) -> Callable[[Language], Any]:
    """A handler that opens a tab."""

    def open_tab(_: Language) -> Any:
        return gr.update(selected=tab)

    return open_tab


def _task_in_address(request: gr.Request) -> str:
    return str(request.query_params.get("task", ""))
