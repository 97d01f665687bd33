"""A tour of five hints: dataset, train, watch, set as backend, chat.

A card at the foot of the page says what a tab is for, while that tab is open and the place meant is outlined; the page
stays usable. It is shown on a first visit (remembered in the browser once it was closed) and comes back by the status
bar's button. A browser that is driven by a program is no visitor: it sees the tour only when it asks for it.

The same script follows the buttons of empty places (`parts.Lead`).
"""

from dataclasses import dataclass

import gradio as gr
from markupsafe import Markup

from sage_studio.text import LANGUAGES, TAGS, Language, Text, multilingual
from sage_studio.ui.components.localization import LabelRegistry

TOUR = Text("Tour")
SKIP, BACK, NEXT = Text("Skip"), Text("Back"), Text("Next")
DONE = Text("Start with a dataset")
OF = Text("{} of {}", context="steps of a tour")
SEEN_KEY = "sage-studio-tour"
"""In the browser's local storage, once the tour was closed."""


@dataclass(frozen=True, slots=True)
class Hint:
    """One card.

    Attributes:
        tab: the tab that it opens.
        targets: ids of what it speaks of, the first that is in sight is outlined.
    """

    tab: str
    targets: str
    title: Text
    words: Text


HINTS = (
    Hint(
        "dataset",
        "dataset-source",
        Text("Bring in what it should learn"),
        Text(
            "Everything starts with a dataset: upload a file of questions and answers, or take one that the studio "
            "makes for you."
        ),
    ),
    Hint(
        "train",
        "train-start",
        Text("Fine-tune a model on it"),
        Text(
            "Choose the dataset and a model; a preset fills in the rest. What the run costs stands beside the button "
            "that starts it."
        ),
    ),
    Hint(
        "tasks",
        "tasks-table",
        Text("Watch it learn"),
        Text(
            "Every run is a task. Its progress, plots and log stay here, even when you close the page. Stop it, resume "
            "it, or download the model."
        ),
    ),
    Hint(
        "tasks",
        "task-backend tasks-table",
        Text("Let your model answer"),
        Text("Choose a completed task and press “Set as backend”: from then on, the chat answers with your model."),
    ),
    Hint(
        "chat",
        "chat-message",
        Text("Talk to it"),
        Text("Ask about what it was trained on. “Compare” shows the base model's answer beside it."),
    ),
)

TOUR_JS = """
const card = element.querySelector('.tour');
const hints = [...card.querySelectorAll('[data-hint]')];
const button = (name) => card.querySelector(`[data-go=${name}]`);
const isOpen = () => card.matches(':popover-open');
let at = 0, outlined = null, wanted = 0;

document.documentElement.lang = card.lang;

const control = (place) => place.matches('button, input, textarea') ? place
  : place.querySelector('input, textarea, button');

/* The first of the ids that is in sight once the tab is open, and can be used if that is asked; null when nothing is
   after three seconds. */
const reach = async (tab, ids, toUse = false) => {
  const mine = ++wanted;
  for (let tries = 0; tries < 60 && mine === wanted; tries++) {
    const opener = tab && document.getElementById(`${tab}-button`);
    if (opener && opener.getAttribute('aria-selected') !== 'true') opener.click();
    const found = ids.split(' ').map((id) => document.getElementById(id))
      .find((each) => each?.offsetParent && (!toUse || control(each)?.disabled === false));
    if (found) return found;
    await new Promise((later) => setTimeout(later, 50));
  }
  return null;
};
const outline = (target) => {
  outlined?.classList.remove('outlined');
  outlined = target;
  outlined?.classList.add('outlined');
  outlined?.scrollIntoView({block: 'center'});
  card.classList.toggle('above', Boolean(target) && target.getBoundingClientRect().top > innerHeight / 2);
};
const show = async (number) => {
  at = number;
  hints.forEach((hint, place) => { hint.hidden = place !== at; });
  card.setAttribute('aria-labelledby', hints[at].querySelector('h2').id);
  button('back').hidden = at === 0;
  const next = button('next');
  next.textContent = at === hints.length - 1 ? next.dataset.last : next.dataset.next;
  outline(null);
  const target = await reach(hints[at].dataset.tab, hints[at].dataset.targets);
  if (isOpen() && hints[at] === hints[number]) outline(target);
};
const open = () => {
  card.showPopover();
  button('next').focus();
  show(0);
};
const close = () => {
  card.hidePopover();
  outline(null);
  try { localStorage.setItem('SEEN_KEY', 'seen'); } catch { /* storage is closed to this page: nothing to remember */ }
  document.querySelector('[data-tour]')?.focus();
};
card.addEventListener('click', async (event) => {
  const go = event.target.closest('[data-go]')?.dataset.go;
  if (go === 'back') { if (at === 1) button('next').focus(); show(at - 1); }
  if (go === 'next' && at < hints.length - 1) show(at + 1);
  else if (go === 'next') { close(); control(await reach(hints[0].dataset.tab, hints[0].dataset.targets))?.focus(); }
  if (go === 'skip') close();
});
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && isOpen() && !document.querySelector('dialog[open]')) close();
});
document.addEventListener('click', async (event) => {
  if (event.target.closest('[data-tour]')) open();
  const lead = event.target.closest('[data-lead]');
  const place = lead && await reach(lead.dataset.tab, lead.dataset.lead, true);
  if (!place) return;
  place.scrollIntoView({block: 'center'});
  if (lead.hasAttribute('data-press') && place.matches('button')) place.click(); else control(place)?.focus();
});

const isFirstVisit = () => { try { return !localStorage.getItem('SEEN_KEY'); } catch { return false; } };
if (isFirstVisit() && !navigator.webdriver) open();
""".replace("SEEN_KEY", SEEN_KEY)


class Tour:
    """The card, closed."""

    def __init__(self, words: LabelRegistry) -> None:
        self.html = words(
            gr.HTML,
            value=multilingual({language: card(language) for language in LANGUAGES}),
            elem_id="tour",
            elem_classes="dialog-host",
            js_on_load=TOUR_JS,
            apply_default_css=False,
        )


def card(language: Language) -> Markup:
    """All hints, the first one in sight, and the buttons that lead through them."""
    hints = Markup().join(_hint(number, hint, language) for number, hint in enumerate(HINTS, 1))
    return Markup(
        '<div class="tour" popover="manual" role="dialog" aria-labelledby="tour-1" lang="{lang}">'
        '<div aria-live="polite">{hints}</div><div class="answers">'
        '<button type="button" data-go="skip">{skip}</button><span></span>'
        '<button type="button" data-go="back" hidden>{back}</button>'
        '<button type="button" data-go="next" class="primary" data-next="{next}" data-last="{done}">{next}</button>'
        "</div></div>"
    ).format(
        lang=TAGS.get(language, language),
        hints=hints,
        skip=SKIP.in_(language),
        back=BACK.in_(language),
        next=NEXT.in_(language),
        done=DONE.in_(language),
    )


def _hint(number: int, hint: Hint, language: Language) -> Markup:
    return Markup(
        '<section data-hint data-tab="{tab}" data-targets="{targets}"{hidden}>'
        '<p class="quiet">{place}</p><h2 id="tour-{number}">{title}</h2><p>{words}</p></section>'
    ).format(
        tab=hint.tab,
        targets=hint.targets,
        hidden=Markup(" hidden") if number > 1 else "",
        place=OF.in_(language).format(number, len(HINTS)),
        number=number,
        title=hint.title.in_(language),
        words=hint.words.in_(language),
    )
