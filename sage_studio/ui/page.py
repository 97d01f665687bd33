"""The whole page: status bar, five tabs, and the steps that lead from one tab to the next.

Every part that a test or a script needs has a stable ``elem_id``:

    status-bar                                   [data-tab=models|tasks], [data-tour] and [data-language] inside it
    tour                                         [data-go=skip|back|next] inside it
    tabs: dataset train tasks chat models        the tab's button is #<id>-button
    dataset-source dataset-upload docs-prepare docs-refresh dataset-progress dataset-list dataset-report
    upload-rows mapping mapping-sample mapping-format mapping-use
    repository-address repository-branch repository-folder repository-rows repository-fetch
    hub-repo hub-config hub-split hub-rows hub-fetch
    dataset-histogram dataset-train dataset-delete dataset-search dataset-prev dataset-next dataset-preview
    dataset-tabs dataset-tab-report dataset-tab-preview dataset-tab-combine dataset-tab-augment
    check-model check-max-length check-against check-stop dataset-check dataset-check-state dataset-findings
    row-box row-model row-max-length row-seen row-edit row-question row-answer row-rejected row-change row-exclude
    row-pending row-save row-discard combine-note combine-name combine-seed combine-shuffle combine-start
    augment-note augment-way augment-part augment-copies augment-rows augment-name augment-start augment-price
    dataset-jobs job-stop job-resume job-look job-delete
    train-method train-preset field-<recipe field> train-model-note train-lora train-more train-missing train-price
    train-start train-run
    run-empty run-head run-loss run-rate run-speed run-log run-stop run-open
    tasks-filter tasks-table task-detail task-backend task-resume task-stop task-download task-delete
    backend-notice task-chat task-head task-loss task-rate task-speed task-log task-settings
    chat-model chat-base chat-banner chat-messages chat-message chat-send chat-stop chat-clear chat-settings
    chat-system chat-temperature chat-max-tokens chat-compare chat-box
    compare-models compare-blind compare-box compare-columns compare-message compare-send compare-stop compare-tally
    models-table model-use model-unload model-delete models-chat models-notice engine-start engine-state engine-log
    metrics-figures metrics-plots metrics-speed metrics-requests metrics-first-token metrics-latency metrics-cache
    metrics-gpu-memory metrics-gpu-load
    dialog-delete-dataset dialog-stop-run dialog-backend dialog-stop dialog-delete dialog-use-model dialog-delete-model

A table's row is ``tr[data-key=<id>]``, a vote ``[data-vote=<column>|-1]``; a dialog's answers are
``[data-answer=ok|cancel]``. On a Hugging Face Space there are ``space-note`` and ``space-sign-out`` too.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from sage_studio.space import Space
from sage_studio.studio import Studio
from sage_studio.text import Language, Text
from sage_studio.ui import endpoints
from sage_studio.ui.chat.chat_tab import ChatTab
from sage_studio.ui.components.events import HEAD, TICK_SECONDS, on
from sage_studio.ui.components.localization import LabelRegistry, LocalizedBlocks, RequestLanguage
from sage_studio.ui.components.page_context import PageContext
from sage_studio.ui.datasets.dataset_tab import DatasetTab
from sage_studio.ui.models.models_tab import ModelsTab
from sage_studio.ui.space_note import space_note
from sage_studio.ui.status_bar import StatusBar
from sage_studio.ui.tasks.tasks_tab import TasksTab
from sage_studio.ui.theme import CSS, StudioTheme
from sage_studio.ui.tour import Tour
from sage_studio.ui.training.training_tab import TrainingTab

TITLE = "SAGE Studio"
TABS = (
    ("dataset", Text("Dataset"), DatasetTab),
    ("train", Text("Train"), TrainingTab),
    ("tasks", Text("Tasks"), TasksTab),
    ("chat", Text("Chat"), ChatTab),
    ("models", Text("Models"), ModelsTab),
)
FIRST = "dataset"


def build_page(studio: Studio, space: Space | None = None) -> gr.Blocks:
    """The page over a studio, with the named endpoints beside it.

    Args:
        studio: the services that the page and the routes call.
        space: the Hugging Face Space that it runs in, if it is one.
    """
    words = LabelRegistry()
    page: LocalizedBlocks
    with LocalizedBlocks(words, title=TITLE, analytics_enabled=False, fill_width=True) as page:
        bar = StatusBar(studio, studio.settings.needs_login and not (space and space.has_oauth))
        if space is not None:
            space_note(studio, space, words, page)
        timer, task, dataset_id, revision = gr.Timer(TICK_SECONDS), gr.State(""), gr.State(""), gr.State(0)
        draft = gr.State(None)
        timers = {name: gr.Timer(TICK_SECONDS, active=name == FIRST) for name, _, _ in TABS}
        inside: dict[str, Any] = {}
        with gr.Tabs(selected=FIRST, elem_id="tabs", overflow_behavior="wrap") as tabs:  # holds tabs only
            context = PageContext(studio, words, tabs, timer, page, task, dataset_id, revision, draft)
            for name, title, contents in TABS:
                with words(gr.Tab, label=title, id=name, elem_id=name) as tab:
                    inside[name] = contents(context.within(tab, timers[name]))
                on(tab.select, only(name), None, list(timers.values()), queue=False)
        Tour(words)
        bar.wire(context.ticks, tabs)
        context.remember_task()
        dataset: DatasetTab = inside["dataset"]
        on(dataset.train.click, dataset.use, context.dataset, [context.dataset, tabs])
        endpoints.register(studio)
    return page


def page_arguments(app_arguments: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """What ``launch`` needs to show the page as it is meant to look.

    Args:
        app_arguments: what else the app behind the page is made with.
    """
    middleware = [*app_arguments.get("middleware", ()), Middleware(RequestLanguage)]
    app_kwargs = {**app_arguments, "middleware": middleware}
    return {"theme": StudioTheme(), "css": CSS, "head": HEAD, "footer_links": ["api"], "app_kwargs": app_kwargs}


def only(seen: str) -> Callable[[Language], list[Any]]:
    """A handler that lets one tab's timer tick: what nobody sees need not be renewed."""

    def tick_only(_: Language) -> list[Any]:
        return [gr.Timer(active=name == seen) for name, _, _ in TABS]

    return tick_only
