"""Next steps for a task: retry with a remedy, reproduce it, or copy its settings."""

from typing import Any

import gradio as gr

from sage_studio.tasks.task import Task, TaskStatus
from sage_studio.text import Language, Text
from sage_studio.training.failures import Action
from sage_studio.ui.components.events import follow, on
from sage_studio.ui.components.labels import NEXT_ACTION
from sage_studio.ui.components.page_context import PageContext, go_to

REPRODUCE = Text("Reproduce")
AGAIN = Text("Settings to the form →")
BY_HAND = frozenset({Action.OTHER_SETTINGS, Action.OTHER_MODEL, Action.OTHER_DATA})


class TaskActions:
    """Three buttons of the row of actions."""

    def __init__(self, context: PageContext) -> None:
        self.context, self.studio = context, context.studio
        words = context.words
        self.remedy = gr.Button(visible=False, variant="primary", elem_id="task-next")
        self.reproduce = words(gr.Button, value=REPRODUCE, visible=False, elem_id="task-reproduce")
        self.again = words(gr.Button, value=AGAIN, elem_id="task-again")

    def wire(self) -> None:
        """Hang up the handlers; after the whole tab is there."""
        context, task = self.context, self.context.task
        follow([*context.ticks, task.change], self.show, [task], [self.remedy, self.reproduce, self.again])
        changed = [task, context.revision, context.draft, context.tabs]
        on(self.remedy.click, self.mend, [task, context.revision], changed)
        on(self.reproduce.click, self.run_again, [task, context.revision], [task, context.revision])
        on(self.again.click, self.take_settings, task, [context.draft, context.tabs])

    def show(self, language: Language, picked: str) -> tuple[Any, Any, Any]:
        """Which of them the picked task's state offers; none for a task that is no training."""
        task = next((task for task in self.studio.tasks.list() if task.id == picked), None)
        return *offered_next(task, language), gr.update(visible=task is not None)

    def mend(self, language: Language, task_id: str, revision: int) -> tuple[Any, ...]:
        """Do the remedy, or open the form where a person has to choose."""
        task = self.studio.tasks.get(task_id)
        if task.next_action in BY_HAND:
            return gr.skip(), gr.skip(), task.recipe, go_to("train")(language)
        return self.studio.training.retry(task_id).id, revision + 1, gr.skip(), gr.skip()

    def run_again(self, _: Language, task_id: str, revision: int) -> tuple[str, int]:
        """Queue the very run again and look at it."""
        return self.studio.training.reproduce(task_id).id, revision + 1

    def take_settings(self, language: Language, task_id: str) -> tuple[Any, Any]:
        """Open the form with the task's settings."""
        return self.studio.tasks.get(task_id).recipe, go_to("train")(language)


def offered_next(task: Task | None, language: Language) -> tuple[Any, Any]:
    """The remedy under its name, unless it is to resume, which has a button of its own; and reproduce."""
    action = task.next_action if task is not None else None
    remedy = gr.update(visible=False)
    if action is not None and action is not Action.RESUME:
        remedy = gr.update(visible=True, value=NEXT_ACTION[action].in_(language))
    return remedy, gr.update(visible=task is not None and task.status is TaskStatus.COMPLETED)
