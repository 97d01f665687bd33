"""The studio's routes as an app of their own: what gradio would make, without a page."""

from fastapi import FastAPI

from sage_studio.api.app import app_arguments
from sage_studio.studio import Studio

LOGIN = ("ada", "secret")


class App(FastAPI):
    """With what gradio's app has and the guard reads: the login cookies' names and tokens."""

    cookie_id = "test"

    def __init__(self, **arguments) -> None:
        super().__init__(**arguments)
        self.tokens: dict[str, str] = {}


def app_of(studio: Studio, credentials: tuple[str, str] | None = None) -> App:
    arguments = app_arguments(studio, credentials)
    return App(**arguments)
