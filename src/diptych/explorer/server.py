"""``diptych explore``: a page on 127.0.0.1, for as long as it is wanted."""

import contextlib
import errno
import os
import secrets
import sys
import threading
import webbrowser

from diptych.errors import ConfigError
from diptych.explorer.desk import Desk
from diptych.explorer.handler import handler_of
from diptych.explorer.pool import Pool
from diptych.explorer.scene import Scene

HOST = "127.0.0.1"
PORT = 8765
TRIED = 50
"""Ports tried one after the other where the first is in use."""


class Server:
    """Shows a scene to browsers on this machine, from threads of its own, until it is closed.

    Args:
        scene: what to show.
        port: where to listen; the next free one is taken where it is in use, any free one for 0.

    Raises:
        ConfigError: the port is no port, or it and all that follow are in use.
    """

    def __init__(self, scene: Scene, port: int = PORT) -> None:
        if not 0 <= port <= 65535:
            raise ConfigError(f"--port must be 0..65535, not {port}")
        token = secrets.token_urlsafe(24)
        self._pool = _listening(Desk(scene, token), port)
        self.port: int = self._pool.server_address[1]
        self.address = f"http://{HOST}:{self.port}/{token}/"
        self.note = f"port {port} is in use, so this is {self.port}" if port not in (0, self.port) else None
        """For people, where another port was taken than was asked for."""
        self._thread = threading.Thread(target=self._pool.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self) -> None:
        """Go on until Ctrl-C is pressed, then close."""
        with contextlib.suppress(KeyboardInterrupt):
            self._thread.join()
        self.close()

    def close(self) -> None:
        """Stop listening."""
        self._pool.shutdown()
        self._thread.join()
        self._pool.server_close()


def names_of(port: int) -> list[str]:
    """Return what browsers call a server of this machine: they leave out the usual port."""
    return [name if port == 80 else f"{name}:{port}" for name in (HOST, "localhost")]


def _listening(desk: Desk, port: int) -> Pool:
    for tried in range(port, min(port + TRIED, 65536)):
        hosts: list[str] = []
        try:
            pool = Pool((HOST, tried), handler_of(desk, hosts))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            continue
        hosts += names_of(pool.server_address[1])
        return pool
    raise ConfigError(f"port {port} and those after it are in use: choose another --port, or --port 0 for any free one")


def show(address: str) -> bool:
    """Open a page in the browser; False where there is none that has windows."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False  # a browser of text would take over the terminal
    try:
        return webbrowser.open(address)
    except webbrowser.Error:
        return False
