"""The Hub of our own with what a push needs: tokens, creating, uploading, committing, deleting."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from .hub import PRIVATE, Hub, git_oid, send, send_json, token_of

CUT = 0
# Whose token it is, and what it may do.
TOKENS = {"hf_writes": ("me", "write"), "hf_reads": ("me", "read"), "hf_others": ("other", "write")}


@dataclass
class Repository:
    """Commits by their number: a folder each; branches by name: a commit each."""

    private: bool
    commits: dict[str, Path] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)


class WritableHub(Hub):
    """A Hub with repositories that can be made and changed.

    Attributes:
        root: folder for all that it stores.
        faults: status by a part of "VERB /path"; such a request is answered with that status, or its
            connection is closed where it is CUT.
        admitting: gated repositories, and who may fetch what they hold.
    """

    def __init__(self, root: Path) -> None:
        super().__init__({})
        self.root = root
        self.written: dict[str, Repository] = {}
        self.faults: dict[str, int] = {}
        self.admitting: dict[str, set[str]] = {}

    def at(self, repo: str, revision: str) -> tuple[Path | str, str]:
        found = self.written.get(repo)
        if found is None:
            return PRIVATE, ""
        sha = found.branches.get(revision, revision)
        return found.commits.get(sha, ""), sha if sha in found.commits else ""

    def readable(self, request: BaseHTTPRequestHandler, repo: str) -> bool:
        return not self.private(repo) or self.name(request) == repo.partition("/")[0]

    def admitted(self, request: BaseHTTPRequestHandler, repo: str) -> bool:
        return not self.gated(repo) or self.name(request) in self.admitting[repo]

    def gated(self, repo: str) -> bool:
        return repo in self.admitting

    def name(self, request: BaseHTTPRequestHandler) -> str:
        """Who asks; empty for nobody that is known."""
        return TOKENS.get(token_of(request), ("", ""))[0]

    def private(self, repo: str) -> bool:
        return self.written[repo].private

    def head(self, repo: str, branch: str = "main") -> Path:
        """The folder of a branch's last commit."""
        found = self.written[repo]
        return found.commits[found.branches[branch]]

    def write(self, request: BaseHTTPRequestHandler, verb: str, path: str, body: bytes) -> bool:
        asked = f"{verb} {path}"
        for part, status in self.faults.items():
            if part in asked:
                if status == CUT:
                    request.close_connection = True
                    request.connection.shutdown(2)
                else:
                    send(request, status, b"{}", {"Content-Type": "application/json"})
                return True
        if token_of(request) not in ("", *TOKENS):
            send(request, 401, b"{}", {"X-Error-Message": "Invalid credentials in Authorization header"})
            return True
        if verb == "PUT" and path.startswith("/lfs/"):
            self.store(body)
            send(request, 200, b"", {})
            return True
        parts = path.strip("/").split("/")
        writes = verb in ("PUT", "DELETE") or (asked.startswith("POST /api/") and "paths-info" not in parts)
        if path != "/api/whoami-v2" and not writes and ".git/info/lfs" not in path:
            return False
        if token_of(request) not in TOKENS:
            send(request, 401, b"{}", {})
            return True
        name, role = TOKENS[token_of(request)]
        if path == "/api/whoami-v2":
            who = {"type": "user", "name": name, "orgs": [], "auth": {"accessToken": {"role": role}}}
            send_json(request, who)
        elif path == "/api/validate-yaml":
            send_json(request, {"errors": [], "warnings": []})
        elif role != "write":
            send(request, 403, b"{}", {})
        else:
            self.change(
                request, verb, parts, json.loads(body) if body[:1] == b"{" and b"\n" not in body else body
            )
        return True

    def change(self, request: BaseHTTPRequestHandler, verb: str, parts: list[str], body) -> None:
        match [verb, *parts]:
            case ["POST", "api", "repos", "create"]:
                repo = f"{body.get('organization') or 'me'}/{body['name']}"
                if repo in self.written:
                    send(request, 409, json.dumps({"url": f"{self.url}/{repo}"}).encode(), {})
                    return
                self.make(repo, _private(body))
                send_json(request, {"url": f"{self.url}/{repo}", "name": repo})
            case ["DELETE", "api", "repos", "delete"]:
                del self.written[f"{body.get('organization') or 'me'}/{body['name']}"]
                send_json(request, {})
            case ["PUT", "api", "models", owner, name, "settings"]:
                self.written[f"{owner}/{name}"].private = _private(body)
                send_json(request, {})
            case ["POST", "api", "models", owner, name, "branch", branch]:
                branches = self.written[f"{owner}/{name}"].branches
                branches[branch] = branches["main"]
                send_json(request, {})
            case ["DELETE", "api", "models", owner, name, "branch", branch]:
                del self.written[f"{owner}/{name}"].branches[branch]
                send_json(request, {})
            case ["POST", "api", "models", owner, name, "preupload", branch]:
                folder = self.head(f"{owner}/{name}", branch)
                send_json(request, {"files": [_mode(folder, f["path"]) for f in body["files"]]})
            case ["POST", _, _, "info", "lfs", "objects", "batch"]:
                send_json(
                    request, {"transfer": "basic", "objects": [self.wanted(o) for o in body["objects"]]}
                )
            case ["POST", "api", "models", owner, name, "commit", branch]:
                sha = self.commit(f"{owner}/{name}", branch, [json.loads(line) for line in body.splitlines()])
                url = f"{self.url}/{owner}/{name}/commit/{sha}"
                send_json(request, {"commitUrl": url, "commitOid": sha})
            case _:
                send(request, 404, b"{}", {})

    def make(self, repo: str, private: bool, files: dict[str, str] | None = None) -> None:
        """A new repository, with these files."""
        self.written[repo] = Repository(private)
        first = {".gitattributes": "*.safetensors filter=lfs\n", **(files or {})}
        self.add(repo, "main", {name: text.encode() for name, text in first.items()}, ())

    def commit(self, repo: str, branch: str, lines: list[dict]) -> str:
        files, gone = {}, []
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = (self.root / "lfs" / value["oid"]).read_bytes()
            elif line["key"] == "deletedFile":
                gone.append(value["path"])
        return self.add(repo, branch, files, gone)

    def add(self, repo: str, branch: str, files: dict[str, bytes], gone) -> str:
        found = self.written[repo]
        sha = hashlib.sha1(f"{repo}{branch}{len(found.commits)}".encode()).hexdigest()
        folder = self.root / "commits" / sha
        if branch in found.branches:
            shutil.copytree(self.head(repo, branch), folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name in gone:
            (folder / name).unlink()
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        found.commits[sha], found.branches[branch] = folder, sha
        return sha

    def store(self, data: bytes) -> None:
        place = self.root / "lfs" / hashlib.sha256(data).hexdigest()
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)

    def wanted(self, thing: dict) -> dict:
        """How a large file is to be sent; nothing where it is there."""
        there = (self.root / "lfs" / thing["oid"]).exists()
        actions = {"actions": {"upload": {"href": f"{self.url}/lfs/{thing['oid']}"}}}
        return {**thing, **({} if there else actions)}


def _mode(folder: Path, name: str) -> dict:
    """How a file is to be uploaded, and what is there now by this name."""
    path, large = folder / name, name.endswith(".safetensors")
    data = path.read_bytes() if path.is_file() else None
    oid = None if data is None else hashlib.sha256(data).hexdigest() if large else git_oid(data)
    return {"path": name, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}


def _private(body: dict) -> bool:
    """As release 2 of the client says it, or release 1."""
    return body.get("visibility") == "private" or body.get("private") is True
