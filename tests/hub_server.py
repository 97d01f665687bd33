"""A model hub on a real socket: the routes of huggingface.co that libraries ask for a model, over folders of files.

Weights are large files: a HEAD is answered with a redirect to another host, as the hub sends one to its storage.
"""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin")
PIECE = 64 << 10


class HubServer(ThreadingHTTPServer):
    """Serves the models of ``models``: a folder by name.

    Attributes:
        gated: names of models that ask for a token; private: names that nobody may see.
        cut_after: bytes of a file that are sent before the connection breaks, once; None for whole files.
        slow: seconds between two pieces of 64 KiB.
        sent: bytes sent by path. sending: the answers that are under way.
        asked: (method, path, Range header), in order.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.models: dict[str, Path] = {}
        self.gated: set[str] = set()
        self.tags: dict[str, str] = {}
        self.cut_after: int | None = None
        self.slow = 0.0
        self.damage = False
        self.sent: dict[str, int] = {}
        self.sending: set[BaseHTTPRequestHandler] = set()
        self.asked: list[tuple[str, str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, name: str, folder: Path, tag: str = "text-generation") -> None:
        self.models[name], self.tags[name] = folder, tag


@contextmanager
def serving() -> Iterator[HubServer]:
    with HubServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def etag_of(path: Path) -> str:
    content = path.read_bytes()
    if path.name.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


class _Answers(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        address = urlsplit(self.path)
        path = unquote(address.path)
        self.server.asked.append((self.command, path, self.headers.get("Range", "")))
        if path == "/api/models":
            return self._json(self._search(parse_qs(address.query)))
        if path.startswith("/api/models/"):
            return self._info(path.removeprefix("/api/models/").partition("/revision/")[0])
        if path.startswith("/storage/"):
            return self._file(path.removeprefix("/storage/"))
        name, found, rest = path.strip("/").partition("/resolve/")
        if not found or name not in self.server.models:
            return self._refuse(404, "RepoNotFound")
        if name in self.server.gated and not self.headers.get("Authorization"):
            return self._refuse(401, "GatedRepo")
        return self._resolve(name, rest.partition("/")[2])

    def _search(self, asked: dict[str, list[str]]) -> list[dict[str, object]]:
        text, tag = asked.get("search", [""])[0].lower(), asked.get("pipeline_tag", [""])[0]
        return [
            {"id": name, "downloads": 7, "gated": "auto" if name in self.server.gated else False, "pipeline_tag": tag}
            for name in self.server.models
            if text in name.lower() and self.server.tags[name] == tag
        ]

    def _info(self, name: str) -> None:
        folder = self.server.models.get(name)
        if folder is None:
            return self._refuse(404, "RepoNotFound")
        siblings = []
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            sibling: dict[str, object] = {"rfilename": path.relative_to(folder).as_posix(), "size": path.stat().st_size}
            if path.name.endswith(LARGE):
                lfs = {"sha256": etag_of(path), "size": path.stat().st_size, "pointerSize": 134}
                sibling |= {"blobId": "0" * 40, "lfs": lfs}
            else:
                sibling["blobId"] = etag_of(path)
            siblings.append(sibling)
        gated = "auto" if name in self.server.gated else False
        tag = self.server.tags[name]
        self._json({"id": name, "sha": COMMIT, "pipeline_tag": tag, "gated": gated, "siblings": siblings})

    def _resolve(self, name: str, file: str) -> None:
        path = self.server.models[name] / file
        if not path.is_file():
            return self._refuse(404, "EntryNotFound")
        if not path.name.endswith(LARGE):
            return self._bytes(path, {"ETag": f'"{etag_of(path)}"', "X-Repo-Commit": COMMIT})
        self.send_response(302)
        self.send_header("Location", f"http://localhost:{self.server.server_port}/storage/{name}/{file}")
        self.send_header("X-Linked-Etag", f'"{etag_of(path)}"')
        self.send_header("X-Linked-Size", str(path.stat().st_size))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _file(self, place: str) -> None:
        owner, name, file = place.split("/", 2)
        self._bytes(self.server.models[f"{owner}/{name}"] / file, {})

    def _bytes(self, path: Path, headers: dict[str, str]) -> None:
        content, asked = path.read_bytes(), self.headers.get("Range", "")
        if self.server.damage:
            content = bytes(len(content))
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        for header, value in headers.items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.server.sending.add(self)
        try:
            self._pieces(path.name, content, start)
        finally:
            self.server.sending.discard(self)

    def _pieces(self, name: str, content: bytes, start: int) -> None:
        for place in range(start, len(content), PIECE):
            piece = content[place : place + PIECE]
            limit = self.server.cut_after
            if limit is not None and place - start + len(piece) > limit:
                self.server.cut_after = None
                self.close_connection = True
                self.connection.close()
                return
            try:
                self.wfile.write(piece)
            except OSError:
                self.close_connection = True
                return
            self.server.sent[name] = self.server.sent.get(name, 0) + len(piece)
            if self.server.slow and len(content) > PIECE:
                time.sleep(self.server.slow)

    def _json(self, shown: object) -> None:
        content = json.dumps(shown).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass
