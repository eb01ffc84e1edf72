# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the Hugging Face hub and for plain file servers, on the loopback interface.

It answers the requests that huggingface_hub makes for a file (HEAD on .../resolve/..., redirected
to a store of blobs as the real one does) and Range requests, and it can be told to misbehave.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class WeightsServer:
    """Files and faults; ``requests`` records what was asked: (method, path, Range header)."""

    def __init__(self) -> None:
        self.hub: dict[str, bytes] = {}  # "owner/name/path/in/repository" -> content
        self.plain: dict[str, bytes] = {}  # "/path" -> content
        self.revisions = {"main", COMMIT}
        self.advertised_sha256: str | None = None  # instead of the true one
        self.corrupt = False  # send other bytes of the same length
        self.cut_after: int | None = None  # bytes of a body before the connection is cut
        self.down_after_cut = False  # and answer 503 from then on
        self.hold: threading.Event | None = None  # instead of cutting, go silent until it is set
        self.status: int | None = None  # answer everything with this
        self.range_supported = True
        self.requests: list[tuple[str, str, str | None]] = []
        self.url = ""
        self.store_url = ""  # the blobs, under another host name as on the real hub

    def bodies(self) -> list[str | None]:
        """Range headers of the requests for bytes, in order."""
        return [
            wanted
            for method, path, wanted in self.requests
            if method == "GET" and "/resolve/" not in path and not path.startswith("/api/")
        ]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def _answer(self, *, with_body: bool) -> None:
        files, path = self.server.files, unquote(self.path)
        files.requests.append((self.command, path, self.headers.get("Range")))
        if files.status is not None:
            return self._status(files.status)
        if "/resolve/" in path:
            return self._resolve(path)
        content = files.plain.get(path)
        if path.startswith("/blobs/"):
            content = next((c for c in files.hub.values() if sha256(c) == path[7:]), None)
        if content is None:
            return self._status(404)
        self._send(content, with_body)

    def _resolve(self, path: str) -> None:
        files = self.server.files
        repository, _, rest = path[1:].partition("/resolve/")
        revision, _, name = rest.partition("/")
        if not any(key.startswith(repository + "/") for key in files.hub):
            return self._status(404, {"X-Error-Code": "RepoNotFound"})
        if revision not in files.revisions:
            return self._status(404, {"X-Error-Code": "RevisionNotFound"})
        content = files.hub.get(f"{repository}/{name}")
        if content is None:
            return self._status(404, {"X-Error-Code": "EntryNotFound"})
        headers = {
            "X-Repo-Commit": COMMIT,
            "X-Linked-Etag": f'"{files.advertised_sha256 or sha256(content)}"',
            "X-Linked-Size": str(len(content)),
            "Location": f"{files.store_url}/blobs/{sha256(content)}",
        }
        self._status(302, headers)

    def _status(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, content: bytes, with_body: bool) -> None:
        files = self.server.files
        if files.corrupt:
            content = bytes(byte ^ 0xFF for byte in content)
        start = self._start() if files.range_supported else 0
        if start >= len(content):
            return self._status(416, {"Content-Range": f"bytes */{len(content)}"})
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if not with_body:
            return
        body = content[start:]
        if files.cut_after is not None and len(body) > files.cut_after:
            self.wfile.write(body[: files.cut_after])
            if files.hold is not None:
                files.hold.wait(20.0)
            self.close_connection = True
            if files.down_after_cut:
                files.status = 503
            return
        self.wfile.write(body)

    def _start(self) -> int:
        wanted = self.headers.get("Range")
        return int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, files: WeightsServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        files.url = f"http://127.0.0.1:{self.server_address[1]}"
        files.store_url = f"http://localhost:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that was cut off or went away is part of the tests


@contextmanager
def weights_server() -> Iterator[WeightsServer]:
    """Serve until the block ends."""
    files = WeightsServer()
    with _Server(files) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield files
        finally:
            server.shutdown()
            thread.join()
