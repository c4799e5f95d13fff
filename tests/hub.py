"""A Hub of our own: as much of its HTTP interface as models and datasets need, on localhost."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

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
                hub.answer(self, "GET")

            def do_HEAD(self) -> None:
                hub.answer(self, "HEAD")

            def do_POST(self) -> None:
                hub.answer(self, "POST")

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

    def answer(self, request: BaseHTTPRequestHandler, verb: str) -> None:
        path = unquote(urlsplit(request.path).path)
        self.requests.append(f"{verb} {path}")
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        parts = path.strip("/").split("/")
        api = parts[0] == "api"
        parts = parts[1:] if api else parts
        # "models/" stands in addresses of the interface only, "datasets/" in those of files too.
        parts = parts[1:] if parts[0] in ("models", "datasets") else parts
        repo, rest = "/".join(parts[:2]), parts[2:]
        folder = self.repos.get(repo, PRIVATE)
        if folder == PRIVATE:
            _send(request, 401, b"Invalid username or password.", {"X-Error-Code": "RepoNotFound"})
        elif rest[1:2] and rest[1] not in ("main", SHA):
            _send(request, 404, b"Invalid rev id.", {"X-Error-Code": "RevisionNotFound"})
        elif folder == GATED and not api:
            # What a gated repository holds may be listed, but not fetched.
            _send(request, 403, b"Access is restricted.", {"X-Error-Code": "GatedRepo"})
        elif api and (rest[:1] == ["tree"] or rest[:1] == ["paths-info"]):
            _send_json(request, _entries(folder, rest, body))
        elif api and (not rest or rest[0] == "revision"):
            files = [{"path": "config.json", "size": 9}] if folder == GATED else _listing(folder)
            siblings = [{"rfilename": f["path"], "size": f["size"]} for f in files]
            _send_json(request, {"id": repo, "sha": SHA, "siblings": siblings, "tags": [], "private": False})
        elif not api and rest[:1] == ["resolve"] and folder.joinpath(*rest[2:]).is_file():
            _send_file(request, folder.joinpath(*rest[2:]).read_bytes())
        else:
            _send(request, 404, b"Not found.", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": SHA})


def _entries(folder: Path | str, rest: list[str], body: bytes) -> list[dict]:
    """Files and folders below a folder ("tree"), or those asked for by name ("paths-info")."""
    if folder == GATED:
        return []
    files = [{"type": "file", **f} for f in _listing(folder)]
    folders = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_dir()}
    found = files + [{"type": "directory", "path": p, "size": 0, "oid": "0" * 40} for p in sorted(folders)]
    if rest[0] == "paths-info":
        sent = body.decode()
        wanted = json.loads(sent)["paths"] if sent.startswith("{") else parse_qs(sent).get("paths", [])
        return [f for f in found if f["path"] in wanted]
    below = "".join(f"{part}/" for part in rest[2:])
    return [f for f in found if f["path"].startswith(below)]


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


def _send_file(request: BaseHTTPRequestHandler, data: bytes) -> None:
    """A file, or the part of it that was asked for (`Range: bytes=FIRST-LAST`)."""
    headers = {
        "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
        "X-Repo-Commit": SHA,
        "Accept-Ranges": "bytes",
    }
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    if not asked:
        _send(request, 200, data, headers)
        return
    first, last = int(asked[1]), min(int(asked[2] or len(data) - 1), len(data) - 1)
    _send(
        request,
        206,
        data[first : last + 1],
        {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"},
    )


def _send_json(request: BaseHTTPRequestHandler, value) -> None:
    _send(request, 200, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _send(request: BaseHTTPRequestHandler, code: int, body: bytes, headers: dict[str, str]) -> None:
    request.send_response(code)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)
