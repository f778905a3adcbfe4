"""A server of weights on 127.0.0.1 that can do wrong, and models that are served by it."""

from __future__ import annotations

import hashlib
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef" * 2 + "01234567"


@dataclass
class Served:
    """What is served and how; all may be changed while it runs.

    Attributes:
        files: content by path; of the hub ``/owner/name/resolve/main/file``
        cut_after: bytes after which an answer is cut, one number for each of the next answers
        has_ranges: whether parts can be asked for
        has_tags: whether files have an ETag
        asked: (method, path, header "Range") of each request
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cut_after: list[int] = field(default_factory=list)
    has_ranges: bool = True
    has_tags: bool = True
    status: int | None = None
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)

    def put(self, path: str, content: bytes) -> str:
        """Serve a file; its address."""
        self.files[path] = content
        return self.url + path

    def put_in_repo(self, repo: str, name: str, content: bytes) -> None:
        """Serve a file as Hugging Face would."""
        self.files[f"/{repo}/resolve/main/{name}"] = content

    @property
    def ranges(self) -> list[str | None]:
        """What parts were asked for."""
        return [part for method, _, part in self.asked if method == "GET"]


@contextmanager
def serve():
    """A running server, as a :class:`Served`."""
    served = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self._answer(with_body=False)

        def do_GET(self):
            self._answer(with_body=True)

        def _answer(self, with_body):
            wanted = self.headers.get("Range")
            served.asked.append((self.command, self.path, wanted))
            content = served.files.get(self.path)
            if served.status is not None or content is None:
                self.send_response(served.status or 404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            start = 0
            same = self.headers.get("If-Range") in (None, etag)
            if wanted and served.has_ranges and same:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                last = len(content) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
            else:
                self.send_response(200)
            if served.has_tags:
                self.send_header("ETag", etag)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if with_body:
                body = content[start:]
                if served.cut_after:
                    body = body[: served.cut_after.pop(0)]
                    self.close_connection = True
                self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
