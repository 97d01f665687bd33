"""Hugging Face Space: what its environment says, and where a studio keeps its files there."""

import importlib.util
import os
import sqlite3
import uuid
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sage_studio.settings import PREFIX, Settings, load_settings

DATA = Path("/data")
"""Where a Space's own storage is mounted, if it has any: all else in the container is gone at the next restart."""

HUB_HOME = "HF_HOME"
OAUTH = ("OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_SCOPES", "OPENID_PROVIDER_URL")
"""What the hub sets where the README's header says ``hf_oauth: true``."""
OAUTH_PACKAGES = ("authlib", "itsdangerous")
"""What ``gradio[oauth]`` brings, which a Space's builder installs."""
PASSING = {"overlay", "tmpfs", "ramfs"}
"""File systems that end with the container."""


@dataclass(frozen=True)
class Space:
    """The Space that this process runs in.

    Attributes:
        id: ``owner/name``.
        author: the owner's name on the hub, a person or an organization.
        hosts: names that lead straight to the app, outside the hub's page; the first is the Space's own.
        has_oauth: whether people can sign in with their account on the hub.
    """

    id: str
    author: str
    hosts: tuple[str, ...]
    has_oauth: bool

    @classmethod
    def here(cls, environment: Mapping[str, str] = os.environ) -> "Space | None":
        """The Space that the environment tells of; None anywhere else."""
        name = environment.get("SPACE_ID")
        if not name:
            return None
        hosts = tuple(host for host in map(str.strip, environment.get("SPACE_HOST", "").split(",")) if host)
        packages = all(importlib.util.find_spec(package) for package in OAUTH_PACKAGES)
        has_oauth = packages and all(environment.get(variable) for variable in OAUTH)
        return cls(name, environment.get("SPACE_AUTHOR_NAME") or name.partition("/")[0], hosts, has_oauth)

    @property
    def address(self) -> str:
        """Where the app is outside the hub's page, which shows it in an iframe; empty if the Space does not say."""
        return f"https://{self.hosts[0]}" if self.hosts else ""


def space_settings(data: Path = DATA) -> Settings:
    """The settings on a Space: all interfaces, and the Space's own storage as home, unless set otherwise.

    Also points the hub's cache at that storage, so it has to run before ``huggingface_hub`` is imported.

    Raises:
        InvalidSetting: as `load_settings`.
    """
    ours: dict[str, object] = {}
    if not os.environ.get(f"{PREFIX}HOST"):
        ours["host"] = "0.0.0.0"
    if has_default_home(load_settings()) and can_hold_a_studio(data):
        ours["home"] = data / "sage"
        if HUB_HOME not in os.environ:
            os.environ[HUB_HOME] = str(data / ".huggingface")
            adopt_preloaded(Path("~/.cache/huggingface/hub").expanduser(), data / ".huggingface" / "hub")
    return load_settings(**ours)


def has_default_home(settings: Settings) -> bool:
    """Whether nobody chose a home."""
    return bool(settings.home == Settings.model_fields["home"].default)


def can_hold_a_studio(folder: Path) -> bool:
    """Whether the folder can be written to and a database kept in it, which not every mounted storage can."""
    probe = folder / f".sage-{uuid.uuid4().hex}.db"
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return False
    try:
        with closing(sqlite3.connect(probe)) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("CREATE TABLE probe (x)")
            database.commit()
    except (sqlite3.Error, OSError):
        return False
    finally:
        for file in folder.glob(f"{probe.name}*"):
            file.unlink(missing_ok=True)
    return True


def adopt_preloaded(image: Path, cache: Path) -> None:
    """Let the hub's cache on the storage find what ``preload_from_hub`` put into the image, without a copy.

    A link left by an earlier image that led to another place, or leads nowhere now, is made anew or removed.
    """
    cache.mkdir(parents=True, exist_ok=True)
    for link in cache.glob("models--*"):
        if link.is_symlink():
            link.unlink()
    for folder in image.glob("models--*"):
        if not (cache / folder.name).exists():
            (cache / folder.name).symlink_to(folder, target_is_directory=True)


def outlives_a_restart(settings: Settings, mounts: Iterable[str] | None = None) -> bool:
    """Whether the home lies on storage that is still there after the container is gone.

    Args:
        settings: with the home in question.
        mounts: lines of ``/proc/self/mounts``; by default those of this machine.
    """
    if has_default_home(settings):
        return False
    if mounts is None:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    home = settings.root.parent
    around = [(Path(line.split()[1]), line.split()[2]) for line in mounts]
    point, kind = max(
        (entry for entry in around if home.is_relative_to(entry[0])), key=lambda entry: len(entry[0].parts)
    )
    return point != Path("/") and kind not in PASSING
