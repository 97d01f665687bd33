"""Status bar: current model, engine, training and memory; each part leads to its tab."""

import functools
import time

import gradio as gr
from markupsafe import Markup

from sage_studio.hardware import Hardware, detect_hardware
from sage_studio.serving.types import EngineState, EngineStatus
from sage_studio.studio import Studio
from sage_studio.tasks.task import Task, TaskProgress, TaskStatus
from sage_studio.text import LANGUAGES, Language, Text
from sage_studio.ui.components.events import follow, on
from sage_studio.ui.components.format import duration, joined, short
from sage_studio.ui.components.html import html, quiet
from sage_studio.ui.components.labels import ENGINE_COLOUR, ENGINE_STATE, TASK_STATUS
from sage_studio.ui.components.localization import SWITCH_JS
from sage_studio.ui.components.progress import doing, transfer_line
from sage_studio.ui.tasks.run_view import epoch_of
from sage_studio.ui.tour import TOUR

HARDWARE_SECONDS = 5
NO_MODEL = Text("no chat backend yet")
NO_TASK = Text("nothing is being trained")
LEFT = Text("{} left", context="short")
EXPECTED = Text("{} of about {}")
EPOCHS = Text("{} epochs")
MEMORY = Text("memory")
SIGN_OUT = Text("Sign out")
NAME_OF_LANGUAGE = Text("English", context="the name of this language, in it")

JUMP_JS = (
    "element.addEventListener('click', (event) => { const target = event.target.closest('[data-tab],[data-language]');"
    " if (!target) return;"
    f" if (target.dataset.language) ({SWITCH_JS})(target.dataset.language);"
    " else trigger('select', {key: target.dataset.tab}); });"
)


class StatusBar:
    """Always true: it renews itself with the page's timer.

    Args:
        studio: the services that it shows.
        can_sign_out: whether people log in with the studio's own password.
    """

    def __init__(self, studio: Studio, can_sign_out: bool = False) -> None:
        self.studio, self.can_sign_out = studio, can_sign_out
        self.html = html("status-bar", JUMP_JS)

    def wire(self, triggers: list[object], tabs: gr.Tabs) -> None:
        """Renew it at each trigger; a click on a part opens its tab."""
        follow(triggers, self.render, [], [self.html])
        on(self.html.select, open_tab, None, tabs, queue=False)

    def render(self, language: Language) -> tuple[str]:
        """The whole line."""
        status, task = self.studio.serving.status(), running_task(self.studio)
        backend = engine_line(status, language)
        training = quiet(NO_TASK.in_(language))
        if task is not None:
            training = task_line(task, self.studio.tasks.progress(task.id), language)
        other = LANGUAGES[(LANGUAGES.index(language) + 1) % len(LANGUAGES)]
        return (
            Markup(
                '<div class="status" lang="{}"><h1 class="brand">SAGE Studio</h1>'
                '<button type="button" data-tab="models">{}</button><button type="button" data-tab="tasks">{}</button>'
                '<span class="memory">{}</span>'
                '<button type="button" class="edge" data-tour>{}</button>'
                '<button type="button" class="edge" data-language="{}">{}</button>{}</div>'
            ).format(
                language,
                backend,
                training,
                memory_line(_hardware(int(time.time() // HARDWARE_SECONDS)), language),
                TOUR.in_(language),
                other,
                NAME_OF_LANGUAGE.in_(other),
                sign_out(language) if self.can_sign_out else "",
            ),
        )


def sign_out(language: Language) -> Markup:
    """The button that ends all sessions; a form, because a link can be followed for a person by another page."""
    return Markup('<form method="post" action="logout"><button class="edge">{}</button></form>').format(
        SIGN_OUT.in_(language)
    )


def open_tab(_: Language, event: gr.EventData) -> dict[str, object]:
    """Open the tab that a part of the line belongs to."""
    return gr.update(selected=str(event.key))


def running_task(studio: Studio) -> Task | None:
    """The task that is being worked on now, if there is one: one that trains before one that is prepared."""
    running = [task for task in studio.tasks.list() if task.status.is_running]
    return next((task for task in running if not task.in_preparation), next(iter(running), None))


def engine_line(status: EngineStatus, language: Language) -> Markup:
    """Who answers, through which engine, in which state."""
    name = short(status.current, 34) if status.current else NO_MODEL.in_(language)
    return Markup('<i class="lamp {}"></i><b title="{}">{}</b><span class="quiet">{}</span>').format(
        ENGINE_COLOUR[status.state], status.current, name, joined(status.engine, engine_state(status, language))
    )


def engine_state(status: EngineStatus, language: Language) -> str:
    """``ready 18 tok/s``, ``starting 38 % (12 s of about 31 s)``."""
    message = ENGINE_STATE[status.state].in_(language)
    if status.state is EngineState.DOWNLOADING and status.download is not None:
        return transfer_line(status.download, language)
    if status.state is EngineState.READY and status.tokens_per_second is not None:
        return f"{message} {status.tokens_per_second:.0f} tok/s"
    if status.state not in (EngineState.STARTING, EngineState.SWITCHING):
        return message
    passed = duration(status.seconds, language)
    if not status.expected_seconds:
        return f"{message} {passed}"
    percent = start_percent(status)
    expected = EXPECTED.in_(language).format(passed, duration(status.expected_seconds, language))
    return f"{message} {percent:.0f} % ({expected})"


def start_percent(status: EngineStatus) -> float:
    """How far a start is, by the time the last one took; it never claims to be done."""
    return min(100 * status.seconds / status.expected_seconds, 99.0) if status.expected_seconds else 0.0


def task_line(task: Task, progress: TaskProgress, language: Language) -> Markup:
    """``Training 2/3 epochs · 66 % · 12 min left``, ``Preparing · unpacking the model``."""
    now = progress.now
    if task.status is TaskStatus.PREPARING:
        return Markup('<i class="lamp running"></i><b>{}</b><span class="quiet">{}</span>').format(
            TASK_STATUS[task.status].in_(language), doing(now, language) if now is not None else ""
        )
    epochs = EPOCHS.in_(language).format(epoch_of(now)) if now and now.total_epochs else ""
    left = LEFT.in_(language).format(duration(now.eta_seconds, language)) if now and now.eta_seconds else ""
    parts = joined(epochs, f"{progress.percent:.0f} %", left)
    return Markup('<i class="lamp running"></i><b>{}</b><span class="quiet">{}</span>').format(
        TASK_STATUS[task.status].in_(language), parts
    )


def memory_line(hardware: Hardware, language: Language) -> str:
    """The first GPU's memory, or the machine's."""
    if hardware.gpus:
        gpu = hardware.gpus[0]
        return f"{gpu.name} {gpu.used_gb:.1f} / {gpu.memory_gb:.0f} GB"
    return f"CPU · {MEMORY.in_(language)} {hardware.used_gb:.1f} / {hardware.memory_gb:.0f} GB"


@functools.lru_cache(maxsize=1)
def _hardware(_: int) -> Hardware:
    """The machine, looked at once in a while however many pages ask."""
    return detect_hardware()
