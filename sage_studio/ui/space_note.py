"""Note on top of the page on a Hugging Face Space: own tab, what a restart loses, sign out."""

import functools
from typing import Any

import gradio as gr
from markupsafe import Markup

from sage_studio.space import Space, outlives_a_restart
from sage_studio.studio import Studio
from sage_studio.text import LANGUAGES, Language, Text, multilingual
from sage_studio.ui.components.html import html, notice
from sage_studio.ui.components.localization import LabelRegistry

OWN_TAB = Text("Open the studio in its own tab")
OWN_TAB_REASON = Text("Safari and private windows refuse the login cookie inside the frame on huggingface.co.")
PASSING = Text(
    "This Space has no storage of its own: when it restarts or falls asleep, its datasets, tasks and models are gone."
)
PASSING_REMEDY = Text(
    "Download what you want to keep, or add storage under Settings of the Space; the studio then keeps everything "
    "in /data by itself."
)
SIGN_OUT = "Sign out · 退出登录 ({})"
SIGN_IN = "Sign in with Hugging Face · 登录"

FRAME_JS = "element.querySelector('.own-tab')?.toggleAttribute('hidden', window.self === window.top);"
"""Outside the frame there is nothing to leave."""


def space_note(studio: Studio, space: Space, words: LabelRegistry, page: gr.Blocks) -> None:
    """Put the note on the page that is being built."""
    passing = not outlives_a_restart(studio.settings)
    shown = multilingual({language: str(note_on_top(space, passing, language)) for language in LANGUAGES})
    if shown:
        words(functools.partial(html, "space-note", FRAME_JS), value=shown)
    if space.has_oauth:
        button = gr.LoginButton(SIGN_IN, SIGN_OUT, size="sm", variant="secondary", elem_id="space-sign-out")
        button.load_event_to_attach = None  # its own would be an endpoint that everybody sees
        page.load(sign_out_label, None, button, queue=False, show_progress="hidden", api_visibility="private")


def sign_out_label(profile: gr.OAuthProfile | None) -> Any:
    """The button with the name of who signed in; as it is for one who came in by the secret."""
    return gr.update(value=SIGN_OUT.format(profile.username)) if profile is not None else gr.update()


def note_on_top(space: Space, passing: bool, language: Language) -> Markup:
    """The link out of the frame, and the notice where nothing outlives a restart."""
    message = Markup()
    if space.address:
        message += Markup(
            '<p class="own-tab"><a href="{}" target="_blank" rel="noopener">{} ↗</a> <span class="quiet">{}</span></p>'
        ).format(space.address, OWN_TAB.in_(language), OWN_TAB_REASON.in_(language))
    if passing:
        message += notice("waiting", PASSING.in_(language), PASSING_REMEDY.in_(language))
    return message
