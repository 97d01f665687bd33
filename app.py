"""Settings -> Studio -> launch: the one place where everything meets. Also what a Hugging Face Space runs.

Knows how to put the parts together and how to end them. Knows nothing of what any of them does.
"""

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

from sage_studio.errors import Conflict, StudioError
from sage_studio.settings import LOOPBACK, PREFIX, Settings, load_settings
from sage_studio.text import Language, Text, language_of

if TYPE_CHECKING:
    from sage_studio.studio import Studio

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")


def main() -> int:
    """Run until SIGINT or SIGTERM. Returns the process's exit status."""
    try:
        return serve(load_settings(**({"host": "0.0.0.0"} if "SPACE_ID" in os.environ else {})))
    except StudioError as error:
        print(error.say(_spoken()), file=sys.stderr)
        return 2


def serve(settings: Settings) -> int:
    """Wire, launch, wait for a signal, and end everything in order."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    check_port(settings)
    os.environ["GRADIO_TEMP_DIR"] = str(settings.uploads_dir)
    gc.disable()  # until all is up: the collector would walk, again and again, the objects that stay
    from sage_studio.studio import Studio

    write_log(settings.log_path)
    studio = Studio(settings)
    studio.start()
    try:
        close = launch(studio, credentials(settings))
        gc.freeze()
        gc.enable()
        stopping.wait()
        close()
    finally:
        studio.close()
    return 0


def launch(studio: "Studio", login: tuple[str, str] | None) -> Callable[[], None]:
    """Serve the page and the routes. Returns what closes them again, the share tunnel included."""
    from gradio.tunneling import CURRENT_TUNNELS

    from sage_studio.api.app import app_arguments
    from sage_studio.ui.page import build_page, page_arguments

    settings = studio.settings
    page = build_page(studio)
    page.api_open = False  # as page.queue(api_open=False) would, which builds the whole app once more
    page.launch(
        server_name=settings.host,
        server_port=settings.port,
        share=settings.share,
        auth=login,
        prevent_thread_lock=True,
        quiet=True,
        allowed_paths=[],
        blocked_paths=[str(settings.root / name) for name in ("studio.db", "outputs", "models")],
        max_file_size=f"{settings.max_upload_mb}mb",
        run_history=False,
        enable_monitoring=False,
        strict_cors=True,
        ssr_mode=False,
        **page_arguments(app_arguments(studio, login)),
    )
    announce(settings, page.share_url, login)

    def close() -> None:
        for tunnel in CURRENT_TUNNELS:
            tunnel.kill()
        page.close(verbose=False)

    return close


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
                Text(f"{where} cannot be used: {error.strerror}.", f"无法使用 {where}：{error.strerror}。"),
                Text(
                    f"Choose another: PORT={settings.port + 1} make run",
                    f"请换一个端口：PORT={settings.port + 1} make run",
                ),
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
            Text(f"{PREFIX}AUTH is not of the form user:password.", f"{PREFIX}AUTH 的格式应为 用户名:密码。"),
            Text("Set both, or unset it to have a password generated.", "请同时设置两者，或取消设置以自动生成密码。"),
        )
    return user, password


def announce(settings: Settings, share_url: str | None, login: tuple[str, str] | None) -> None:
    """Print where the studio is and, once, a generated password."""
    host = settings.host if settings.host in LOOPBACK else socket.gethostname()
    print(f"SAGE Studio: http://{host}:{settings.port}", flush=True)
    if share_url:
        print(f"Public link: {share_url}", flush=True)
    if login is not None and not settings.auth:
        print(f"Login: {login[0]} / {login[1]}   (set {PREFIX}AUTH=user:password to choose your own)", flush=True)


def write_log(path: Path) -> None:
    """One line per event into ``studio.log``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("sage_studio")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def _spoken() -> Language:
    return language_of(os.environ.get("LC_ALL") or os.environ.get("LANG"))


if __name__ == "__main__":
    sys.exit(main())
