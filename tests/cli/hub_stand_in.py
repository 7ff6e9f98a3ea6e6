"""A Hugging Face hub on the loopback that receives an upload: both of the hub's ways, in one commit."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_stand_in"


@dataclass
class Hub:
    """What was uploaded."""

    url: str = ""
    created: list[dict[str, Any]] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    """Large files by SHA-256, as they came."""
    files: dict[str, bytes] = field(default_factory=dict)
    """The files of the commit."""
    commits: int = 0


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, code: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def do_GET(self) -> None:
        self._answer(404, {"error": "not found"})

    def do_PUT(self) -> None:
        content = self._body()
        self.server.hub.objects[self.path.rpartition("/")[2]] = content
        self._answer(200, {})

    def do_POST(self) -> None:
        content = self._body()
        hub = self.server.hub
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"error": "Invalid username or password."})
        elif self.path.endswith("/api/repos/create"):
            hub.created.append(json.loads(content))
            self._answer(200, {"url": f"{hub.url}/somebody/model", "id": "1"})
        elif self.path.endswith("/api/validate-yaml"):
            assert json.loads(content)["content"].startswith("---\nlibrary_name: transformers\n")
            self._answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            self._answer(200, {"files": [_upload_mode(file["path"]) for file in json.loads(content)["files"]]})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**wanted, "actions": {"upload": {"href": f"{hub.url}/objects/{wanted['oid']}"}}}
                for wanted in json.loads(content)["objects"]
            ]
            self._answer(200, {"transfer": "basic", "objects": objects})
        else:
            assert "/commit/" in self.path, self.path
            self._commit([json.loads(line) for line in content.splitlines()])
            self._answer(200, {"commitUrl": f"{hub.url}/somebody/model/commit/1", "commitOid": "1"})

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        hub = self.server.hub
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                hub.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                received = hub.objects[value["oid"]]
                assert sha256(received).hexdigest() == value["oid"]
                hub.files[value["path"]] = received
        hub.commits += 1


class _Server(ThreadingHTTPServer):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.hub = Hub()


def _upload_mode(path: str) -> dict[str, Any]:
    mode = "lfs" if path.endswith(".safetensors") else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False}


@contextmanager
def hub_stand_in() -> Iterator[Hub]:
    """Serves until the block ends. Small files come in the commit, *.safetensors by git LFS, as on the hub."""
    server = _Server(("127.0.0.1", 0), _Handler)
    hub = server.hub
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
