"""Which other people can use this machine. Asks the operating system; changes nothing.

vLLM's routes for sleep ask for no key, and with them come others that reach into the engine. They listen on loopback
only, which every local user reaches.
"""

import os
from collections.abc import Iterable
from typing import Protocol

import psutil

FIRST_PERSON, LAST_PERSON = 1000, 59999
"""User ids that Linux distributions give to people; the others belong to services."""
NO_SHELL = ("nologin", "false", "sync", "halt", "shutdown")


class Account(Protocol):
    """An entry of the system's list of users, as `pwd.getpwall` gives it."""

    @property
    def pw_name(self) -> str: ...
    @property
    def pw_uid(self) -> int: ...
    @property
    def pw_shell(self) -> str: ...


def other_users() -> tuple[str, ...]:
    """The names of people other than the one who runs the studio, who may log in here or are logged in now."""
    if not hasattr(os, "getuid"):
        return ()
    import pwd

    return others(pwd.getpwall(), os.getuid(), (user.name for user in psutil.users()))


def others(accounts: Iterable[Account], own: int, logged_in: Iterable[str]) -> tuple[str, ...]:
    """The same on recorded facts.

    Args:
        accounts: all that the system knows.
        own: the user id of the studio.
        logged_in: names of those who are logged in now.
    """
    accounts = list(accounts)
    mine = {account.pw_name for account in accounts if account.pw_uid == own}
    people = {account.pw_name for account in accounts if _is_person(account)}
    return tuple(sorted((people | set(logged_in)) - mine))


def _is_person(account: Account) -> bool:
    shell = account.pw_shell.rpartition("/")[2]
    return FIRST_PERSON <= account.pw_uid <= LAST_PERSON and bool(shell) and shell not in NO_SHELL
