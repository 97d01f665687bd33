"""Addresses of engines on this machine: Unix sockets, each in a folder that only its user can enter.

A port of loopback belongs to every user of the machine: anyone may ask there, and whoever sits on it first is taken for
the engine. A socket in a folder of mode 0700 is reached by its user alone, and only its user can put another there.

The folder is a new one below the system's for temporary files, under a name that nobody can guess, and its path is
kept in the engine's record. Not the home: a socket's path may be 107 bytes long, and not every file system holds
sockets. Not ``$XDG_RUNTIME_DIR``: it goes when the person logs out, and a studio in the background runs on.
"""

import os
import select
import shutil
import socket
import stat
import struct
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpcore
import httpx

SCHEME = "unix:"
HOST = "http://engine"
"""Stands in requests where the host's name would; nothing looks at it."""
PREFIX = "sage-"
SOCKET = "engine.sock"
AGAIN_SECONDS = 0.01
ROOM = 107 - 37
"""Bytes of the longest folder: vLLM keeps the sockets between its processes there too, each a UUID."""


def new_socket() -> Path:
    """Where a server may put its socket: in a new folder of mode 0700. Nothing is at the path yet."""
    folder = tempfile.mkdtemp(prefix=PREFIX)
    if len(os.fsencode(folder)) > ROOM:
        os.rmdir(folder)
        folder = tempfile.mkdtemp(prefix=PREFIX, dir="/tmp")
    return Path(folder) / SOCKET


def remove_socket(path: Path) -> None:
    """Remove a socket of `new_socket` and its folder, once its server has ended."""
    if path.name == SOCKET and path.parent.name.startswith(PREFIX) and _is_ours(path.parent):
        shutil.rmtree(path.parent, ignore_errors=True)


def address_of(path: Path) -> str:
    """The address of a server, as it is recorded and shown: ``unix:/tmp/sage-x1y2z3/engine.sock``."""
    return f"{SCHEME}{path}"


def socket_of(address: str) -> Path | None:
    """The socket in an address; None where it is one of HTTP, as an external server's, or an engine's of 0.1."""
    return Path(address.removeprefix(SCHEME)) if address.startswith(SCHEME) else None


def server_of(address: str) -> str:
    """What stands before the paths of a server that are not below ``/v1``, in requests of `open_client`."""
    return address.removesuffix("/v1") if socket_of(address) is None else HOST


def open_client(address: str, key: str, **options: Any) -> httpx.Client:
    """A client of a server of the OpenAI protocol; paths are relative to its ``/v1``.

    Args:
        address: of `address_of`, or one of HTTP that ends in ``/v1``.
        key: sent with every request; empty for none.
        options: of ``httpx.Client``.
    """
    path = socket_of(address)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    if path is None:
        return httpx.Client(base_url=address, headers=headers, trust_env=False, **options)
    transport = OwnSocket(path, options.pop("limits", httpx.Limits()))
    return httpx.Client(base_url=f"{HOST}/v1", headers=headers, transport=transport, trust_env=False, **options)


class OwnSocket(httpx.HTTPTransport):
    """Speaks over a socket, if its folder and the process at the other end are this user's: the key is sent there."""

    def __init__(self, path: Path, limits: httpx.Limits) -> None:
        super().__init__(verify=False, limits=limits)  # no TLS here, so no certificates to load
        self._pool.close()
        self._pool = httpcore.ConnectionPool(
            uds=str(path),
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=_Backend(),
        )


class _Backend(httpcore.SyncBackend):
    """Connects as httpcore's own does, but looks who is there, waits where many connect at once, and leaks nothing."""

    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        if not _is_ours(Path(path).parent):
            raise httpcore.ConnectError(f"{Path(path).parent} is not there, or not for this user alone")
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _connect(connection, path, timeout)
            peer = _uid_of_peer(connection)
            if peer != os.geteuid():
                raise httpcore.ConnectError(f"{path} belongs to a process of another user (uid {peer})")
        except OSError as error:
            connection.close()
            raise httpcore.ConnectError(f"{path}: {error}") from error
        except BaseException:
            connection.close()
            raise
        return _Stream(connection)


class _Stream(httpcore.NetworkStream):
    """A connection, as httpcore reads and writes it."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            self._socket.settimeout(timeout)
            return self._socket.recv(max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            self._socket.settimeout(timeout)
            self._socket.sendall(buffer)
        except TimeoutError as error:
            raise httpcore.WriteTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        self._socket.close()

    def get_extra_info(self, info: str) -> Any:
        """Only what the pool asks: whether an idle connection has something to read, as when it was closed."""
        return _is_readable(self._socket) if info == "is_readable" else None


def _connect(connection: socket.socket, path: str, timeout: float | None) -> None:
    """Unlike TCP, the system refuses at once (EAGAIN) while too many wait to be accepted."""
    deadline = time.monotonic() + (timeout if timeout is not None else float("inf"))
    connection.settimeout(timeout)
    while True:
        try:
            return connection.connect(path)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(AGAIN_SECONDS)


def _uid_of_peer(connection: socket.socket) -> int:
    """The user who listens at the other end, as the system says."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


def _is_readable(connection: socket.socket) -> bool:
    poll = select.poll()
    if connection.fileno() < 0:
        return True
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def _is_ours(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
