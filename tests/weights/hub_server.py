"""A small Hub on 127.0.0.1 that speaks what the client speaks, and can be told to misbehave.

Two ports: the Hub itself, and the store of large files that it redirects to, as the real one does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_test_token"


@dataclass
class Repository:
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False

    def commit(self, files: dict[str, bytes]) -> str:
        before = self.commits.get(self.refs.get("main", ""), {})
        name = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[name] = {**before, **files}
        self.refs["main"] = name
        return name

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        name = self.refs.get(revision, revision)
        return (name, self.commits[name]) if name in self.commits else None


@dataclass
class Fault:
    """What goes wrong for requests whose 'METHOD /path' matches, and how often (None: always)."""

    pattern: str
    times: int | None = None
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None  # after so many bytes of the body
    stall: float = 0  # seconds of silence, at once or after the cut
    body: Callable[[bytes], bytes] | None = None


@dataclass
class Request:
    line: str
    headers: dict[str, str]


class Hub:
    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.writes_allowed = True
        self.stop = threading.Event()
        self._lock = threading.Lock()
        self.url = self.store_url = ""

    def add(self, name: str, files: dict[str, bytes], **options: bool) -> str:
        repository = self.repositories.setdefault(name, Repository(**options))
        for data in files.values():
            self.large[hashlib.sha256(data).hexdigest()] = data
        return repository.commit(files)

    def fault(self, pattern: str, **what: Any) -> None:
        self.faults.append(Fault(pattern, **what))

    def fault_for(self, line: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.times != 0 and re.search(fault.pattern, line):
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return None

    def lines(self, pattern: str = "") -> list[str]:
        """Requests so far, without the client's daily question about who is asking."""
        lines = [request.line for request in self.requests if "/api/agent-harnesses" not in request.line]
        return [line for line in lines if re.search(pattern, line)]


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()

    class Handler(_Handler):
        state = hub

    servers = [_Server(("127.0.0.1", 0), Handler) for _ in range(2)]
    hub.url, hub.store_url = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in servers]
    for server, thread in zip(servers, threads, strict=True):
        server.daemon_threads = True
        thread.start()
    try:
        yield hub
    finally:
        hub.stop.set()
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()


class _Server(ThreadingHTTPServer):
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is part of the game."""
        if not isinstance(sys.exception(), ConnectionError):
            raise


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        body = self._read_body()
        path = unquote(urlsplit(self.path).path)
        line = f"{self.command} {path}"
        self.state.requests.append(Request(line, {k.lower(): v for k, v in self.headers.items()}))
        fault = self.state.fault_for(line)
        self.fault = fault or Fault("")
        if self.fault.stall and self.fault.cut is None:
            self._stall()
            return
        if self.fault.status:
            self._answer(self.fault.status, {"error": "told to fail"}, self.fault.headers)
            return
        for pattern, handle in _ROUTES:
            if match := re.fullmatch(pattern, line):
                handle(self, match, body)
                return
        self._answer(404, {"error": f"nothing at {line}"})

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(
        self,
        status: int,
        values: object = None,
        headers: dict[str, str] | None = None,
        data: bytes | None = None,
    ) -> None:
        if data is None:
            data = b"" if values is None else json.dumps(values).encode()
        if self.fault.body and self.command == "GET":
            data = self.fault.body(data)
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        if self.fault.cut is not None:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data if self.fault.cut is None else data[: self.fault.cut])
        if self.fault.cut is not None:
            self.close_connection = True
            self._stall()

    def _stall(self) -> None:
        """Say no more for a while, or until the test is over; then hang up."""
        self.state.stop.wait(self.fault.stall)
        self.close_connection = True

    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _repository(self, name: str) -> Repository | None:
        """The repository, or None after the refusal that the real Hub would send."""
        token = self._token()
        if token and token != TOKEN:
            message = "Invalid credentials in Authorization header"
            self._answer(401, {"error": message}, {"X-Error-Message": message})
            return None
        repository = self.state.repositories.get(name)
        if repository is None or (repository.private and token != TOKEN):
            message = "Repository not found" if token else "Invalid username or password."
            headers = {"X-Error-Code": "RepoNotFound", "X-Error-Message": message}
            self._answer(404 if token else 401, {"error": message}, headers)
            return None
        if repository.gated:
            message = f"Access to model {name} is restricted and you are not in the authorized list."
            headers = {"X-Error-Code": "GatedRepo", "X-Error-Message": message}
            self._answer(403 if token else 401, {"error": message}, headers)
            return None
        return repository

    def _writable(self) -> bool:
        if self._token() != TOKEN:
            self._answer(401, {"error": "Invalid username or password."})
            return False
        if not self.state.writes_allowed:
            self._answer(
                403, {"error": "you have no write permission"}, {"X-Error-Message": "no write permission"}
            )
            return False
        return True

    def resolve(self, match: re.Match[str], _: bytes) -> None:
        repository = self._repository(match["repo"])
        if repository is None:
            return
        found = repository.at(match["rev"])
        if found is None:
            self._answer(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
            return
        commit, files = found
        if match["file"] not in files:
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}
            self._answer(404, {"error": "Entry not found"}, headers)
            return
        data = files[match["file"]]
        digest = hashlib.sha256(data).hexdigest()
        self._answer(
            302,
            headers={
                "X-Repo-Commit": commit,
                "X-Linked-Size": str(len(data)),
                "X-Linked-ETag": f'"{digest}"',
                "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
                "Location": f"{self.state.store_url}/store/{digest}",
            },
        )

    def store(self, match: re.Match[str], _: bytes) -> None:
        data = self.state.large[match["oid"]]
        headers = {"Accept-Ranges": "bytes", "ETag": f'"{match["oid"]}"'}
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted:
            start = int(wanted[1])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self._answer(206, headers=headers, data=data[start:])
        else:
            self._answer(200, headers=headers, data=data)

    def model(self, match: re.Match[str], _: bytes) -> None:
        repository = self._repository(match["repo"])
        if repository is None:
            return
        commit = repository.refs.get("main", "0" * 40)
        files = [{"rfilename": name} for name in repository.commits.get(commit, {})]
        self._answer(
            200,
            {
                "id": match["repo"],
                "sha": commit,
                "private": repository.private,
                "siblings": files,
                "tags": [],
            },
        )

    def create(self, _: re.Match[str], body: bytes) -> None:
        if not self._writable():
            return
        values = json.loads(body)
        name = f"{values['organization']}/{values['name']}"
        private = values.get("private") or values.get("visibility") == "private"
        self.state.repositories[name] = Repository(private=bool(private))
        self._answer(200, {"url": f"{self.state.url}/{name}"})

    def validate(self, _: re.Match[str], body: bytes) -> None:
        content = json.loads(body)["content"]
        if not content.startswith("---\n"):
            self._answer(400, {"errors": [{"message": "no metadata"}], "warnings": []})
            return
        self._answer(200, {"errors": [], "warnings": []})

    def preupload(self, _: re.Match[str], body: bytes) -> None:
        if not self._writable():
            return
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self._answer(200, {"files": files})

    def batch(self, _: re.Match[str], body: bytes) -> None:
        objects = [
            {
                **thing,
                "actions": {
                    "upload": {"href": f"{self.state.store_url}/upload/{thing['oid']}"},
                    "verify": {"href": f"{self.state.url}/verify"},
                },
            }
            for thing in json.loads(body)["objects"]
        ]
        self._answer(200, {"transfer": "basic", "objects": objects})

    def upload(self, match: re.Match[str], body: bytes) -> None:
        if hashlib.sha256(body).hexdigest() != match["oid"]:
            self._answer(400, {"error": "wrong checksum"})
            return
        self.state.large[match["oid"]] = body
        self._answer(200)

    def verify(self, _: re.Match[str], body: bytes) -> None:
        values = json.loads(body)
        self._answer(200 if len(self.state.large[values["oid"]]) == values["size"] else 400, {})

    def commit(self, match: re.Match[str], body: bytes) -> None:
        if not self._writable():
            return
        files = {}
        for line in body.splitlines():
            item = json.loads(line)
            if item["key"] == "lfsFile":
                files[item["value"]["path"]] = self.state.large[item["value"]["oid"]]
            elif item["key"] == "file":
                files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
        name = self.state.repositories[match["repo"]].commit(files)
        url = f"{self.state.url}/{match['repo']}/commit/{name}"
        self._answer(200, {"commitUrl": url, "commitOid": name, "success": True})


_REPO = r"(?P<repo>[^/]+/[^/]+)"
_ROUTES: list[tuple[str, Callable[[_Handler, re.Match[str], bytes], None]]] = [
    (
        rf"(?:HEAD|GET) /{_REPO}/resolve/(?P<rev>.+?)/(?P<file>[^/]+(?:/[^/]+\.safetensors)?)",
        _Handler.resolve,
    ),
    (r"GET /store/(?P<oid>[0-9a-f]{64})", _Handler.store),
    (rf"GET /api/models/{_REPO}", _Handler.model),
    (r"POST /api/repos/create", _Handler.create),
    (r"POST /api/validate-yaml", _Handler.validate),
    (rf"POST /api/models/{_REPO}/preupload/main", _Handler.preupload),
    (rf"POST /{_REPO}\.git/info/lfs/objects/batch", _Handler.batch),
    (r"PUT /upload/(?P<oid>[0-9a-f]{64})", _Handler.upload),
    (r"POST /verify", _Handler.verify),
    (rf"POST /api/models/{_REPO}/commit/main", _Handler.commit),
]
