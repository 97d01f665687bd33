"""Files of this machine and addresses that a request names: which of them the studio may touch.

The studio reads and writes with its owner's rights. Whoever works on the machine alone may name any path; where a login
is needed, others ask, and only what lies in folders that the operator named is theirs (``SAGE_STUDIO_LOCAL_ROOTS``).
"""

import ipaddress
import socket
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from sage_studio.errors import InvalidInput
from sage_studio.files import path_of
from sage_studio.settings import CONFIGS, PREFIX, Settings
from sage_studio.text import Text
from sage_studio.validation_errors import shown

NAMES = ("model", "model_name_or_path", "start_from")
"""Fields of which only an absolute path is a path: otherwise they hold an id."""
WRITTEN = ("output_dir",)
WEB = {"http": 80, "https": 443}
NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 addresses behind which an IPv4 address lies."""


class LocalPaths:
    """Resolves every path of a request.

    Args:
        any_path: for the machine's own person, as at the command line: no path is refused.
    """

    def __init__(self, settings: Settings, *, any_path: bool = False) -> None:
        self.is_shared = settings.needs_login and not any_path
        roots = [real for root in settings.local_roots_list if (real := _real(root)) is not None]
        self._is_limited = self.is_shared or (bool(roots) and not any_path)
        self._roots = roots
        own = (settings.models_dir, settings.datasets_dir, settings.outputs_dir, CONFIGS)
        self._readable = [*roots, *(real for folder in own if (real := _real(folder)) is not None)]
        self._default_model = settings.default_model

    def resolve(self, text: str, field: str = "path") -> Path:
        """The path that a request names.

        Args:
            field: what the caller calls it.

        Raises:
            InvalidInput: no system could have such a path, or it leads out of the folders that were named; links are
                followed first. Whether anything is there is not told.
        """
        path = path_of(text, field)
        if not self._is_limited or (field in NAMES and (not path.is_absolute() or text == self._default_model)):
            return path
        real = _real(path)
        within = self._roots if field in WRITTEN else self._readable
        if real is None or not any(real.is_relative_to(root) for root in within):
            raise InvalidInput(
                Text("{field} = {shown}: it is not in a folder that may be used.", field=field, shown=shown(text)),
                Text(
                    "Upload the file, or have the operator name its folder in {prefix}LOCAL_ROOTS.",
                    prefix=PREFIX,
                ),
            )
        return path

    def check_address(self, address: str) -> None:
        """Refuse a repository's address: a local one as `resolve` does, and in shared mode one that is not public.

        Raises:
            InvalidInput: as above, or another scheme than http(s), or a host of this machine or its network.
        """
        scheme, separator, _ = address.strip().partition("://")
        if not separator or scheme.lower() == "file":
            local = path_of(address.strip().removeprefix("file://"), "address")
            if self.is_shared or local.exists():
                self.resolve(address.strip().removeprefix("file://"), "address")
            return
        path_of(address, "address")
        if self.is_shared:
            public_host(address)


def public_host(address: str) -> tuple[str, int, tuple[str, ...]]:
    """The host, port and IP addresses of a web address.

    Returns:
        No IP addresses where a proxy is to resolve the name.

    Raises:
        InvalidInput: no http(s), no such host, or one that is not public.
    """
    try:
        parts = urlsplit(address.strip())
        host, port = parts.hostname or "", parts.port or WEB.get(parts.scheme, 0)
    except ValueError:
        host, port, parts = "", 0, urlsplit("")
    if not host or not port:
        raise _refused(address, Text("only addresses with http:// or https:// are fetched"))
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        if parts.scheme in getproxies() and not _is_number(host):
            return host, port, ()
        raise _refused(address, Text("the host cannot be found")) from error
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not _are_public(addresses):
        raise _refused(address, Text("the host is not a public one"))
    return host, port, addresses


def _are_public(addresses: Iterable[str]) -> bool:
    """Whether none is of this machine, a private network, a link or a group; also as IPv4 within IPv6."""
    for address in addresses:
        known = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(known, ipaddress.IPv6Address):
            translated = ipaddress.IPv4Address(known.packed[-4:]) if known in NAT64 else None
            known = known.ipv4_mapped or known.sixtofour or translated or known
        if not known.is_global or known.is_multicast:
            return False
    return True


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _real(path: Path) -> Path | None:
    """Where a path leads, links followed; None for a circle of links."""
    try:
        return path.expanduser().absolute().resolve()
    except (OSError, RuntimeError):
        return None


def _refused(address: str, why: Text) -> InvalidInput:
    return InvalidInput(
        Text("address = {shown}: {why}.", shown=shown(_without_password(address)), why=why),
        Text("Give the address of a public repository, or upload its documents as a zip."),
    )


def _without_password(address: str) -> str:
    scheme, separator, rest = address.partition("://")
    before, at, after = rest.partition("/")[0].rpartition("@")
    return f"{scheme}{separator}{rest[len(before) + 1 :]}" if at and after else address
