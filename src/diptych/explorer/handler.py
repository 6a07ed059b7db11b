"""HTTP for the explorer: who may ask.

Nothing is answered but to a browser on this machine that knows the random token, the first part of every path.
``Host`` and ``Origin`` are checked too, so that no other page can ask in the browser's name, not even one whose own
name has been pointed to this machine (DNS rebinding). What changes nothing is asked for by GET; the one POST has to
carry the token in a header too, which a page of another origin cannot send.
"""

import contextlib
import hmac
import socket
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler
from io import BufferedReader
from typing import Any

from diptych.explorer.desk import NOT_FOUND, NUMBER, Answer, Desk, problem
from diptych.explorer.pool import Deadline

MOST_BYTES = 64 << 20
"""Of a picture that is sent in; the page refuses more too."""
READING = 10.0
"""Seconds that a client has to send a request without content."""
SENDING = 60.0
"""Seconds that it has to send a picture, or to take an answer."""
LINGERING = 2.0
"""Seconds for which content that is refused is read and dropped, so that the answer reaches the client."""
FAILED = "the server could not do this; its terminal says why"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def handler_of(desk: Desk, hosts: Sequence[str]) -> type[BaseHTTPRequestHandler]:
    """Return what speaks HTTP for a desk; ``hosts`` are the names that this server goes by."""

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "diptych", ""

        def setup(self) -> None:
            super().setup()
            self._deadline = Deadline(self.connection, READING)
            self.rfile = BufferedReader(self._deadline)

        def do_GET(self) -> None:
            self._answer(self._refusal() or self._done(lambda: desk.get(self._path())))

        do_HEAD = do_GET

        def do_POST(self) -> None:
            refusal = self._refusal() or self._post_refusal()
            if refusal is not None:
                self._answer(refusal)
                self._linger()
                return
            length = int(self.headers["Content-Length"])
            self._deadline.extend(SENDING)
            content = self.rfile.read(length)
            if len(content) < length:
                self._answer(problem(400, "the picture was cut short"))
            else:
                self._answer(self._done(lambda: desk.place(content)))

        def _done(self, work: Callable[[], Answer]) -> Answer:
            try:
                return work()
            except Exception:  # our own fault: the page is told that there was one
                self.server.handle_error(self.request, self.client_address)
                return problem(500, FAILED)

        def _path(self) -> str:
            return self.path.partition("?")[0].removeprefix(f"/{desk.token}/")

        def _refusal(self) -> Answer | None:
            origin = self.headers.get("Origin")
            if self.headers.get("Host") not in hosts:
                return problem(403, "this server answers to its own address alone, the one that the terminal shows")
            if origin is not None and origin not in [f"http://{host}" for host in hosts]:
                return problem(403, "another page may not ask this server")
            given = self.path.split("/", 2)
            if len(given) < 3 or not _same(given[1], desk.token):
                return problem(403, "the address lacks its token: open the whole address that the terminal shows")
            return None

        def _post_refusal(self) -> Answer | None:
            if self._path() != "place":
                return NOT_FOUND
            if not _same(self.headers.get("X-Diptych-Token", ""), desk.token):
                return problem(403, "the header X-Diptych-Token is missing or wrong")
            length = self.headers.get("Content-Length", "")
            if not NUMBER.fullmatch(length):
                return problem(411, "the header Content-Length is missing or no number")
            if int(length) > MOST_BYTES:
                return problem(413, f"the picture is larger than {MOST_BYTES >> 20} MiB: give a smaller one")
            return None

        def _linger(self) -> None:
            self._deadline.extend(LINGERING)
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_WR)  # the client has all that it will get
                while self.rfile.read1(1 << 16):
                    pass

        def _answer(self, answer: Answer) -> None:
            self.connection.settimeout(SENDING)
            self.send_response(answer.status)
            for name, value in HEADERS.items():
                self.send_header(name, value)
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(len(answer.body)))
            self.send_header("Cache-Control", "private, max-age=86400, immutable" if answer.kept else "no-store")
            if answer.status == 503:
                self.send_header("Retry-After", "3")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
            self.command = getattr(self, "command", "GET")
            self._answer(problem(405 if code == 501 else code, message or "this request makes no sense"))

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())
