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
        tokens: every token that came with a request.
        listing: status of the list of models.
    """

    def __init__(self, repos: dict[str, Path | str]) -> None:
        self.repos = repos
        self.requests: list[str] = []
        self.tokens: set[str] = set()
        self.listing = 200
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

            def do_PUT(self) -> None:
                hub.answer(self, "PUT")

            def do_DELETE(self) -> None:
                hub.answer(self, "DELETE")

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
        self.tokens |= {token_of(request)} - {""}
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        if self.write(request, verb, path, body):
            return
        if path == "/api/models":
            self.list(request)
            return
        parts = path.strip("/").split("/")
        api = parts[0] == "api"
        parts = parts[1:] if api else parts
        # "models/" stands in addresses of the interface only, "datasets/" in those of files too.
        parts = parts[1:] if parts[0] in ("models", "datasets") else parts
        repo, rest = "/".join(parts[:2]), parts[2:]
        revision = rest[1] if rest[1:2] else "main"
        folder, sha = self.at(repo, revision)
        if folder == PRIVATE or not self.readable(request, repo):
            send(request, 401, b"Invalid username or password.", {"X-Error-Code": "RepoNotFound"})
        elif not sha:
            send(request, 404, b"Invalid rev id.", {"X-Error-Code": "RevisionNotFound"})
        elif not api and not self.admitted(request, repo):
            # What a gated repository holds may be listed, but not fetched.
            send(request, 403, b"Access is restricted.", {"X-Error-Code": "GatedRepo"})
        elif api and (rest[:1] == ["tree"] or rest[:1] == ["paths-info"]):
            send_json(request, _entries(folder, rest, body))
        elif api and (not rest or rest[0] == "revision"):
            files = [{"path": "config.json", "size": 9}] if folder == GATED else _listing(folder)
            siblings = [
                {"rfilename": f["path"], "size": f["size"], "blobId": f.get("oid"), "lfs": f.get("lfs")}
                for f in files
            ]
            told = {"id": repo, "sha": sha, "siblings": siblings, "tags": [], "private": self.private(repo)}
            told |= {"gated": "manual" if self.gated(repo) else False}
            send_json(request, told)
        elif not api and rest[:1] == ["resolve"] and folder.joinpath(*rest[2:]).is_file():
            _send_file(request, folder.joinpath(*rest[2:]).read_bytes(), sha)
        else:
            send(request, 404, b"Not found.", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})

    def list(self, request: BaseHTTPRequestHandler) -> None:
        """Those repositories whose name holds what is searched, as the most famous ones."""
        if self.listing != 200:
            send(request, self.listing, b"{}", {})
            return
        wanted = parse_qs(urlsplit(request.path).query).get("search", [""])[0]
        facts = {"downloads": 1_230_000, "likes": 7, "gated": "manual", "config": {"model_type": "llama"}}
        send_json(request, [{"id": repo, **facts} for repo in self.repos if wanted in repo])

    def at(self, repo: str, revision: str) -> tuple[Path | str, str]:
        """What a repository holds at a revision, and its commit, which is empty for an unknown revision."""
        return self.repos.get(repo, PRIVATE), SHA if revision in ("main", SHA) else ""

    def readable(self, request: BaseHTTPRequestHandler, repo: str) -> bool:
        """Whether who asks may see the repository."""
        return True

    def admitted(self, request: BaseHTTPRequestHandler, repo: str) -> bool:
        """Whether who asks may fetch what the repository holds."""
        return not self.gated(repo)

    def private(self, repo: str) -> bool:
        return False

    def gated(self, repo: str) -> bool:
        return self.repos.get(repo) == GATED

    def write(self, request: BaseHTTPRequestHandler, verb: str, path: str, body: bytes) -> bool:
        """Answer a request that changes something; whether it was one."""
        return False


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


def token_of(request: BaseHTTPRequestHandler) -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ")


def git_oid(data: bytes) -> str:
    """The name that git gives to the content of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _listing(folder: Path) -> list[dict]:
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        data, name = path.read_bytes(), path.relative_to(folder).as_posix()
        facts = {"path": name, "size": len(data), "oid": git_oid(data)}
        if name.endswith(".safetensors"):  # git holds a pointer to it
            checksum = hashlib.sha256(data).hexdigest()
            facts |= {"oid": git_oid(checksum.encode())}
            facts |= {"lfs": {"oid": checksum, "sha256": checksum, "size": len(data), "pointerSize": 134}}
        found.append(facts)
    return found


def _send_file(request: BaseHTTPRequestHandler, data: bytes, sha: str) -> None:
    """A file, or the part of it that was asked for (`Range: bytes=FIRST-LAST`)."""
    headers = {
        "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
        "X-Repo-Commit": sha,
        "Accept-Ranges": "bytes",
    }
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    if not asked:
        send(request, 200, data, headers)
        return
    first, last = int(asked[1]), min(int(asked[2] or len(data) - 1), len(data) - 1)
    send(
        request,
        206,
        data[first : last + 1],
        {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"},
    )


def send_json(request: BaseHTTPRequestHandler, value) -> None:
    send(request, 200, json.dumps(value).encode(), {"Content-Type": "application/json"})


def send(request: BaseHTTPRequestHandler, code: int, body: bytes, headers: dict[str, str]) -> None:
    request.send_response(code)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)
