"""A TCP server with a fixed number of threads: what it cannot take up is told so, whatever the number of connections.

Workers take connections from a queue. Where that is full, one more thread reads what the client has to say, briefly,
and answers 503; where even that one has too many waiting, the answer is sent unread. A connection is for one request.
"""

import contextlib
import io
import os
import queue
import socket
import socketserver
import threading
import time
from typing import Any

WORKERS = 8
WAITING = 256
"""Connections that wait for a worker."""
REFUSED = 128
"""Connections that wait to be told that there are too many."""
PATIENCE = 0.2
"""Seconds that such a client has to finish its request."""
LEAVING = 5.0
"""Seconds that requests have to be answered when the server is closed."""
BUSY = "this server has too many requests at once: try again in a second"
_ANSWER = (
    "HTTP/1.0 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 1\r\n"
    f"Connection: close\r\nContent-Length: {len(BUSY)}\r\n\r\n{BUSY}"
).encode()

Connection = socket.socket


class Pool(socketserver.TCPServer):
    """A server of few threads; ``serve_forever`` accepts connections until ``shutdown``."""

    allow_reuse_address = os.name != "nt"  # there it would let two servers share a port
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], handler: type[socketserver.BaseRequestHandler]) -> None:
        self._waiting: queue.Queue[tuple[Connection, Any] | None] = queue.Queue(WAITING)
        self._refused: queue.Queue[Connection | None] = queue.Queue(REFUSED)
        self._threads: list[threading.Thread] = []
        super().__init__(address, handler)  # closes itself where the port is in use
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(WORKERS)]
        self._threads.append(threading.Thread(target=self._refuse, daemon=True))
        for thread in self._threads:
            thread.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hand a connection to the workers, or see that it is refused."""
        try:
            self._waiting.put_nowait((request, client_address))
        except queue.Full:
            try:
                self._refused.put_nowait(request)
            except queue.Full:
                self._tell_busy(request)

    def server_close(self) -> None:
        """Close the socket and what waits, and end the threads once they have answered what they took up, or soon."""
        super().server_close()
        with contextlib.suppress(queue.Empty):
            while taken := self._waiting.get_nowait():
                self.shutdown_request(taken[0])
        for _ in self._threads[:-1]:
            self._waiting.put(None)
        self._refused.put(None)
        end = time.monotonic() + LEAVING
        for thread in self._threads:
            thread.join(timeout=max(0.0, end - time.monotonic()))

    def _work(self) -> None:
        while (taken := self._waiting.get()) is not None:
            request, client_address = taken
            try:
                self.finish_request(request, client_address)
            except OSError:
                pass  # a client that went away or was too slow goes in silence
            except Exception:
                self.handle_error(request, client_address)
            finally:
                self.shutdown_request(request)

    def _refuse(self) -> None:
        while (request := self._refused.get()) is not None:
            # To close with a request unread would reset the connection, and take the answer with it.
            end, heard = time.monotonic() + PATIENCE, b""
            with contextlib.suppress(OSError):
                while b"\r\n\r\n" not in heard and (left := end - time.monotonic()) > 0:
                    request.settimeout(left)
                    part = request.recv(1 << 16)
                    if not part:
                        break
                    heard = heard[-3:] + part
            self._tell_busy(request)

    def _tell_busy(self, request: Connection) -> None:
        with contextlib.suppress(OSError):
            request.settimeout(0)
            request.send(_ANSWER)
        self.shutdown_request(request)


class Deadline(io.RawIOBase):
    """Reads a connection until a moment: a client that sends a byte now and then would hold a worker for ever.

    Args:
        connection: to read.
        seconds: from now.
    """

    def __init__(self, connection: Connection, seconds: float) -> None:
        self._connection, self._end = connection, time.monotonic() + seconds

    def extend(self, seconds: float) -> None:
        """Read until a moment so many seconds from now instead."""
        self._end = time.monotonic() + seconds

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what has come. Raises TimeoutError once the moment is over."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request took too long")
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)
