"""Login with a Hugging Face account: the Space's owner, and whoever the owner names."""

import time
from collections.abc import Iterable

from starlette.requests import HTTPConnection

from sage_studio.settings import Settings, split_names
from sage_studio.space import Space

SIGN_IN = "/login/huggingface?_target_url=/"
SIGN_OUT = "/logout"
"""Gradio's own routes, there as soon as its page holds a ``gr.LoginButton``."""


class HubLogin:
    """The allow-list, and who it is that asks.

    The session is a cookie that gradio signs with the OAuth app's secret, so its content can be trusted.

    Args:
        allowed: names on the hub; their case does not matter there.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(name.casefold() for name in allowed)

    @classmethod
    def on(cls, space: Space, settings: Settings) -> "HubLogin":
        """For the owner of a Space and those in the setting ``allowed_users``."""
        return cls([space.author, *split_names(settings.allowed_users)])

    def admits(self, name: str | None) -> bool:
        """Whether a person of that name may come in."""
        return name is not None and name.casefold() in self._allowed

    def signed_in(self, request: HTTPConnection) -> str | None:
        """The name on the hub of who asks, allowed or not; None where nobody has signed in, or not lately."""
        info = request.scope.get("session", {}).get("oauth_info") or {}
        if info.get("expires_at", 0) < time.time():
            return None
        name = (info.get("userinfo") or {}).get("preferred_username")
        return str(name) if name else None
