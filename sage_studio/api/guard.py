"""Who asks, by cookie, the hub's session, Basic or Bearer credentials; and how often a login may fail."""

import base64
import binascii
import logging
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator

from starlette.requests import HTTPConnection

from sage_studio.api.hub_login import HubLogin

USER = "sage_studio.user"
"""Of a request's scope: who asks, found once."""
SESSION_SECONDS = 7 * 24 * 3600.0
"""After which a person has to log in again."""
FAILURES, REFILL_SECONDS = 10, 6.0
"""Logins that may fail at once from one address, and the seconds after which one more may."""
FAILURES_IN_ALL, REFILL_SECONDS_IN_ALL = 100, 0.6
MOST_ADDRESSES = 10_000

logger = logging.getLogger(__name__)


class LoginThrottle:
    """Token buckets of failed logins: one for each address, and one for all together.

    Through a share link everybody has the address of its tunnel: the bucket of that address then holds for
    everybody who is not logged in yet. Whoever is logged in is not asked.

    Args:
        clock: seconds that only grow.

    Example:
        >>> now = 0.0
        >>> throttle = LoginThrottle(lambda: now)
        >>> for _ in range(10): throttle.count_failure("203.0.113.7")
        >>> throttle.seconds_to_wait("203.0.113.7"), throttle.seconds_to_wait("203.0.113.8")
        (6, 0)
        >>> now = 6.0
        >>> throttle.seconds_to_wait("203.0.113.7")
        0
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._all = _Bucket(FAILURES_IN_ALL, REFILL_SECONDS_IN_ALL)
        self._of: OrderedDict[str, _Bucket] = OrderedDict()

    def seconds_to_wait(self, address: str) -> int:
        """Whole seconds until an address may try a login; 0: now."""
        of_it = self._of.get(address, _Bucket(FAILURES, REFILL_SECONDS))
        now = self._clock()
        return math.ceil(max(of_it.seconds_to_wait(now), self._all.seconds_to_wait(now)))

    def count_failure(self, address: str) -> None:
        """A login from an address has failed."""
        now = self._clock()
        self._all.take(now)
        self._of.setdefault(address, _Bucket(FAILURES, REFILL_SECONDS)).take(now)
        self._of.move_to_end(address)
        if len(self._of) > MOST_ADDRESSES:
            self._of.popitem(last=False)


class _Bucket:
    """Tokens that are taken by failures and come back with time."""

    def __init__(self, most: int, refill_seconds: float) -> None:
        self._most, self._refill_seconds = most, refill_seconds
        self._left, self._seen = float(most), 0.0

    def seconds_to_wait(self, now: float) -> float:
        return max(0.0, 1 - self._filled(now)) * self._refill_seconds

    def take(self, now: float) -> None:
        self._left, self._seen = max(0.0, self._filled(now) - 1), now

    def _filled(self, now: float) -> float:
        return min(self._most, self._left + (now - self._seen) / self._refill_seconds)


class Guard:
    """Knows who may use the studio.

    A script sends the same user and password as the login form: by HTTP Basic, or as the Bearer key ``user:password``,
    which is all that OpenAI's clients can send.

    Args:
        credentials: user and password, or None where they open nothing.
        hub: who may come in with an account on the hub; None where nobody can sign in so.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        credentials: tuple[str, str] | None,
        hub: HubLogin | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._credentials = credentials
        self._hub = hub
        self._clock = clock
        self._throttle = LoginThrottle(clock)
        self._begun: dict[str, float] = {}

    @property
    def needs_login(self) -> bool:
        """Whether a login is needed."""
        return self._credentials is not None or self._hub is not None

    @property
    def has_hub(self) -> bool:
        """Whether people sign in with their account on the hub."""
        return self._hub is not None

    def user_of(self, request: HTTPConnection) -> str | None:
        """Who asks, if they may come in; None for a stranger. Fit to be gradio's ``auth_dependency``."""
        if USER not in request.scope:
            request.scope[USER] = self._find_user(request)
        user: str | None = request.scope[USER]
        return user

    def hub_name(self, request: HTTPConnection) -> str | None:
        """The name on the hub of who asks, on the list or not; None where nobody has signed in there."""
        return self._hub.signed_in(request) if self._hub is not None else None

    def seconds_to_wait(self, request: HTTPConnection) -> int:
        """Whole seconds until a login from this address may be tried; 0: now."""
        return self._throttle.seconds_to_wait(_address_of(request))

    def count_failure(self, request: HTTPConnection) -> None:
        """A login has failed."""
        address = _address_of(request)
        logger.warning("A login from %s failed", address)
        self._throttle.count_failure(address)

    def log_out(self, request: HTTPConnection) -> None:
        """End all sessions of who asks, in every browser."""
        tokens: dict[str, str] = request.app.tokens
        user = self.user_of(request)
        for token in [token for token, name in tokens.items() if name == user]:
            del tokens[token]
            self._begun.pop(token, None)

    @staticmethod
    def cookie_names(request: HTTPConnection) -> tuple[str, str]:
        """The names of gradio's login cookies: for https, and for plain http."""
        return f"access-token-{request.app.cookie_id}", f"access-token-unsecure-{request.app.cookie_id}"

    def _find_user(self, request: HTTPConnection) -> str | None:
        name = self.hub_name(request)
        if self._hub is not None and self._hub.admits(name):
            return name
        if self._credentials is not None and (self._has_session(request) or self._has_password(request)):
            return self._credentials[0]
        return None

    def _has_session(self, request: HTTPConnection) -> bool:
        tokens: dict[str, str] = request.app.tokens
        for token in self._cookies(request):
            if token not in tokens:
                continue
            if self._clock() - self._begun.setdefault(token, self._clock()) < SESSION_SECONDS:
                return True
            del tokens[token], self._begun[token]
        return False

    def _cookies(self, request: HTTPConnection) -> Iterator[str]:
        for name in self.cookie_names(request):
            if name in request.cookies:
                yield request.cookies[name]

    def _has_password(self, request: HTTPConnection) -> bool:
        if "authorization" not in request.headers or self.seconds_to_wait(request) > 0:
            return False
        scheme, _, sent = request.headers["authorization"].partition(" ")
        given = _read(scheme.lower(), sent)
        right = ":".join(self._credentials or ()).encode()
        if given is not None and secrets.compare_digest(given, right):
            return True
        self.count_failure(request)
        return False


def _read(scheme: str, sent: str) -> bytes | None:
    """``user:password`` as it was sent; None where it cannot be read."""
    if scheme == "bearer":
        return sent.encode()
    if scheme != "basic":
        return None
    try:
        return base64.b64decode(sent, validate=True)
    except (binascii.Error, ValueError):
        return None


def _address_of(request: HTTPConnection) -> str:
    return request.client.host if request.client is not None else ""
