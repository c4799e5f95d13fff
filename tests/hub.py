"""A Hub of our own: as much of its HTTP interface as loading a model needs, on localhost."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

SHA = "0123456789abcdef0123456789abcdef01234567"
PRIVATE, GATED = "private", "gated"


class Hub:
    """Repositories by id: a folder, or PRIVATE (as good as missing), or GATED.

    Attributes:
        requests: "METHOD /path" of everything that was asked.
    """

    def __init__(self, repos: dict[str, Path | str]) -> None:
        self.repos = repos
        self.requests: list[str] = []
        self.url = ""

    def fetched(self, repo: str) -> set[str]:
        """Paths of the files whose content was sent."""
        start = f"GET /{repo}/resolve/"
        return {r[len(start) :].split("/", 1)[1] for r in self.requests if r.startswith(start)}

    @contextmanager
    def open(self) -> Iterator[Hub]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub._answer(self, "GET")

            def do_HEAD(self) -> None:
                hub._answer(self, "HEAD")

            def log_message(self, *_) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler, verb: str) -> None:
        path = unquote(urlsplit(request.path).path)
        self.requests.append(f"{verb} {path}")
        parts = path.strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        parts = parts[2:] if api else parts
        repo, rest = "/".join(parts[:2]), parts[2:]
        folder = self.repos.get(repo, PRIVATE)
        if folder == PRIVATE:
            _send(request, 401, b"Invalid username or password.", {"X-Error-Code": "RepoNotFound"})
        elif folder == GATED and not api:
            # What a gated repository holds may be listed, but not fetched.
            _send(request, 403, b"Access is restricted.", {"X-Error-Code": "GatedRepo"})
        elif api and rest[:1] == ["tree"]:
            _send_json(request, [{"type": "file", **f} for f in _listing(folder)])
        elif api and (not rest or rest[0] == "revision"):
            files = [{"path": "config.json", "size": 9}] if folder == GATED else _listing(folder)
            siblings = [{"rfilename": f["path"], "size": f["size"]} for f in files]
            _send_json(request, {"id": repo, "sha": SHA, "siblings": siblings, "tags": [], "private": False})
        elif not api and rest[:1] == ["resolve"] and folder.joinpath(*rest[2:]).is_file():
            data = folder.joinpath(*rest[2:]).read_bytes()
            etag = hashlib.sha256(data).hexdigest()
            _send(request, 200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": SHA})
        else:
            _send(request, 404, b"Not found.", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": SHA})


def _listing(folder: Path) -> list[dict]:
    return [
        {
            "path": p.relative_to(folder).as_posix(),
            "size": p.stat().st_size,
            "oid": hashlib.sha1(p.read_bytes()).hexdigest(),
        }
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    ]


def _send_json(request: BaseHTTPRequestHandler, value) -> None:
    _send(request, 200, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _send(request: BaseHTTPRequestHandler, code: int, body: bytes, headers: dict[str, str]) -> None:
    request.send_response(code)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)
