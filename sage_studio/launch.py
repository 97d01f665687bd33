"""Settings -> Studio -> launch: wires the studio, serves its page, and ends everything in order."""

import gc
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sage_studio.daemon import remove_pid_file, write_pid_file
from sage_studio.errors import Conflict, StudioError
from sage_studio.files import PRIVATE
from sage_studio.settings import LOOPBACK, PREFIX, Settings, load_settings
from sage_studio.space import Space, space_settings
from sage_studio.text import LANGUAGES, Language, Text, language_of

if TYPE_CHECKING:
    import gradio as gr

    from sage_studio.studio import Studio

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")


def main() -> int:
    """Run until SIGINT or SIGTERM. Returns the process's exit status."""
    os.umask(PRIVATE)
    space = Space.here()
    try:
        settings = load_settings() if space is None else space_settings()
        return serve(settings, space)
    except StudioError as error:
        print(error.say(_language()), file=sys.stderr)
        return 2


def serve(settings: Settings, space: Space | None = None) -> int:
    """Wire, launch, wait for a signal, and end everything in order."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    check_port(settings)
    os.environ["GRADIO_TEMP_DIR"] = str(settings.uploads_dir)
    try:
        login = credentials(settings) if space is None else space_credentials(settings, space)
    except Conflict as reason:
        if space is None:
            raise
        return stay_closed(settings, reason)
    gc.disable()  # until all is up: the collector would walk, again and again, the objects that stay
    from sage_studio.studio import Studio

    write_log(settings.log_path)
    studio = Studio(settings)
    studio.start()
    try:
        page, close = launch(studio, login, space)
        announce(settings, login)
        write_pid_file(settings, address_of(settings))
        gc.freeze()
        gc.enable()
        if settings.share and space is None:
            from sage_studio.ui.share_link import open_share_link

            open_share_link(settings, page.share_token, stopping, _language())
        stopping.wait()
        close()
    finally:
        studio.close()
        remove_pid_file(settings)
    return 0


def launch(
    studio: "Studio", login: tuple[str, str] | None, space: Space | None = None
) -> "tuple[gr.Blocks, Callable[[], None]]":
    """Serve the page and the routes. Returns the page and what closes all of it, the share tunnel included."""
    from gradio.tunneling import CURRENT_TUNNELS

    from sage_studio.api.app import app_arguments
    from sage_studio.api.guard import Guard
    from sage_studio.api.hub_login import HubLogin
    from sage_studio.api.notice_page import login_note
    from sage_studio.ui.page import build_page, page_arguments

    settings = studio.settings
    hub = HubLogin.on(space, settings) if space is not None and space.has_oauth else None
    address = space.address if space is not None else ""
    page = build_page(studio, space)
    page.api_open = False  # as page.queue(api_open=False) would, which builds the whole app once more
    page.launch(
        server_name=settings.host,
        server_port=settings.port,
        share=False,  # the link comes after the address is said: see `sage_studio.ui.share_link`
        auth=login if hub is None else None,
        auth_dependency=Guard(login, hub).user_of if hub is not None else None,
        auth_message="<hr>".join(login_note(address, language) for language in LANGUAGES),
        prevent_thread_lock=True,
        quiet=True,
        allowed_paths=[],
        blocked_paths=[str(settings.root / name) for name in ("studio.db", "outputs", "models")],
        max_file_size=f"{settings.max_upload_mb}mb",
        run_history=False,
        enable_monitoring=False,
        strict_cors=True,
        ssr_mode=False,
        **page_arguments(app_arguments(studio, login, hub, address)),
    )

    def close() -> None:
        for tunnel in CURRENT_TUNNELS:
            tunnel.kill()  # type: ignore[no-untyped-call]
        page.close(verbose=False)

    return page, close


def stay_closed(settings: Settings, reason: StudioError) -> int:
    """Show why the studio is not open, until a signal."""
    from sage_studio.api.notice_page import serve_closed

    print(reason.say(_language()), file=sys.stderr, flush=True)
    serve_closed(settings, reason)
    return 0


def check_port(settings: Settings) -> None:
    """Raise `Conflict` when the port is taken, naming it and the remedy."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            where = f"{settings.host}:{settings.port}"
            raise Conflict(
                Text("{where} cannot be used: {strerror}.", where=where, strerror=error.strerror),
                Text("Choose another: PORT={port} make run", port=settings.port + 1),
            ) from error


def credentials(settings: Settings) -> tuple[str, str] | None:
    """User and password, where a login is needed; generated if none is set.

    Raises:
        Conflict: ``auth`` is set but is not ``user:password``.
    """
    if not settings.needs_login:
        return None
    user, _, password = settings.auth.partition(":")
    if not settings.auth:
        return "sage", secrets.token_urlsafe(12)
    if not user or not password:
        raise Conflict(
            Text("{prefix}AUTH is not of the form user:password.", prefix=PREFIX),
            Text("Set both, or unset it to have a password generated."),
        )
    return user, password


def space_credentials(settings: Settings, space: Space) -> tuple[str, str] | None:
    """User and password on a Space; None where people sign in on the hub and none were set besides.

    Never generated: a password in the log of a public Space is for its owner only to find, and a new one at every
    start.

    Raises:
        Conflict: there is no way to log in, or ``auth`` is not ``user:password``.
    """
    if settings.auth:
        return credentials(settings)
    if space.has_oauth:
        return None
    raise Conflict(
        Text("This Space has no login yet, so it stays closed."),
        Text(
            "Add the secret {prefix}AUTH with the value user:password, or hf_oauth: true in README.md.", prefix=PREFIX
        ),
    )


def announce(settings: Settings, login: tuple[str, str] | None) -> None:
    """Print where the studio is and, once, a generated password."""
    host = settings.host if settings.host in LOOPBACK else socket.gethostname()
    print(f"SAGE Studio: http://{host}:{settings.port}", flush=True)
    if login is not None and not settings.auth:
        print(f"Login: {login[0]} / {login[1]}   (set {PREFIX}AUTH=user:password to choose your own)", flush=True)


def address_of(settings: Settings) -> str:
    """Where this machine reaches the page."""
    host = settings.host if settings.host in LOOPBACK else "127.0.0.1"
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def write_log(path: Path) -> None:
    """One line per event into ``studio.log``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("sage_studio")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def _language() -> Language:
    return language_of(os.environ.get("LC_ALL") or os.environ.get("LANG"))


if __name__ == "__main__":
    sys.exit(main())
