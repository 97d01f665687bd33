"""The public link: gradio's tunnel to this machine, or why it did not open.

Not left to ``launch``, which says nothing, not even the local address, for as long as the tunnel's server does not
answer (a minute), and keeps a certificate in the working folder, which may be read-only.
"""

import functools
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import httpx
from gradio import networking, tunneling
from gradio.exceptions import ChecksumMismatchError

from sage_studio.child_environment import Needs, child_environment
from sage_studio.settings import Settings
from sage_studio.text import Language, Text

OPENING = Text("Opening a public link …")
PUBLIC_LINK = Text("Public link: {}")
NO_LINK = Text(
    "No public link: gradio's share server or its tunnel program could not be reached ({}). "
    "The studio runs on, at the address above. Check the network and start it again, or let the local network in: "
    "HOST=0.0.0.0 make run"
)
FAULTS = (RuntimeError, ValueError, OSError, httpx.HTTPError, ChecksumMismatchError)
"""What gradio's ``setup_tunnel`` raises."""
ENDING = (signal.SIGINT, signal.SIGTERM)


def open_share_link(settings: Settings, token: str, stopping: threading.Event, language: Language) -> str | None:
    """Open the tunnel and print its address, or why there is none. Call it in the main thread.

    Args:
        settings: where the studio answers, and the home that keeps the tunnel's certificate.
        token: gradio's for this page.
        stopping: set by a signal that arrives meanwhile, which ends the wait.
        language: of what is printed.

    Returns:
        The public address, None where it did not open.
    """
    networking.CERTIFICATE_PATH = str(settings.root / "share-certificate.pem")  # type: ignore[attr-defined]  # no setting
    start = functools.partial(subprocess.Popen, env=child_environment(Needs.NETWORK))
    # It would hand every secret down to a program that it downloaded.
    tunneling.subprocess = SimpleNamespace(Popen=start, PIPE=subprocess.PIPE)  # type: ignore[attr-defined, assignment]

    def interrupt(*_: object) -> None:
        if not stopping.is_set():
            stopping.set()
            raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in ENDING}
    try:
        for number in ENDING:
            signal.signal(number, interrupt)
        print(OPENING.in_(language), flush=True)
        url = networking.setup_tunnel(settings.host, settings.port, token, None, None).replace("http://", "https://", 1)
        print(PUBLIC_LINK.in_(language).format(url), flush=True)
        return url
    except FAULTS as error:
        print(NO_LINK.in_(language).format(first_line(error)), file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        pass  # the caller ends everything, a tunnel half open included
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return None


def first_line(error: Exception) -> str:
    """What went wrong, from the error that began it, in one line."""
    cause = error.__cause__ or error
    return (str(cause) or type(cause).__name__).strip().splitlines()[0]
