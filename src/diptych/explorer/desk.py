"""What the explorer's page can ask for, and the answers; who may ask is decided in ``handler.py``.

Paths are compared as they come and never decoded, and pictures are asked for by their number: no name of a file travels
in a request, and nothing is read but the pictures of the set.
"""

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from diptych.errors import UserError
from diptych.explorer.files import KINDS, page_files
from diptych.explorer.later import Later
from diptych.explorer.scene import Scene, listed
from diptych.vectors.thumbnails import MIME

SIDE = 240
"""Pixels of the longer side of a picture on the page."""
HEAVY = 2
"""Searches at once: more would only take turns."""
TURN = 30.0
"""Seconds that a request waits for such a turn."""
PATIENCE = 1.0
"""Seconds that a request waits for what takes long; then the page is told how far it is, and asks again."""
JSON = "application/json"
BINARY = "application/octet-stream"
NUMBER = re.compile(r"0|[1-9][0-9]{0,9}")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is sent back."""

    body: bytes
    kind: str = JSON
    status: int = 200
    kept: bool = False
    """Whether the browser may keep it for as long as this server lives."""


def problem(status: int, text: str) -> Answer:
    """Return an answer that says what is wrong, as the page reads it."""
    return Answer(body=json.dumps({"error": text}).encode(), status=status)


NOT_FOUND = problem(404, "there is no such thing here")


class Desk:
    """Answers requests for one scene.

    Args:
        scene: what is shown.
        token: the first part of every path.
    """

    def __init__(self, scene: Scene, token: str) -> None:
        self.token = token
        self._scene, self._files, self._turns = scene, page_files(), threading.BoundedSemaphore(HEAVY)

    def get(self, path: str) -> Answer:
        """Answer a request for what lies below the token."""
        name = path or "index.html"
        if name in self._files:
            return Answer(body=self._files[name], kind=KINDS[name])
        if path == "scene":
            return _when_there(
                self._scene.layout, lambda _: _json(self._scene.about(places=self._scene.embed is not None))
            )
        if path == "positions":
            return _when_there(self._scene.layout, lambda _: Answer(body=self._scene.positions(), kind=BINARY))
        if path == "names":
            return Answer(body=self._scene.names().encode())
        what, _, which = path.partition("/")
        if what in ("picture", "neighbours"):
            return self._of_picture(what, which)
        if what == "scheme" and which in self._scene.schemes:
            return _when_there(self._scene.schemes[which].later, lambda colouring: _json(colouring.to_dict()))
        return NOT_FOUND

    def place(self, content: bytes) -> Answer:
        """Say where a picture belongs."""
        if self._scene.embed is None:
            return NOT_FOUND
        return self._in_turn(lambda: _json(self._scene.place(content)))

    def _of_picture(self, what: str, which: str) -> Answer:
        if not NUMBER.fullmatch(which) or int(which) >= len(self._scene.vectors):
            return NOT_FOUND
        row = int(which)
        if what == "neighbours":
            return self._in_turn(lambda: _json(_first(self._scene, row)))
        content = self._scene.picture(row, SIDE)
        if content is None:
            return problem(404, "this picture cannot be read")
        return Answer(body=content, kind=MIME, kept=True)

    def _in_turn(self, compute: Callable[[], Answer]) -> Answer:
        if not self._turns.acquire(timeout=TURN):
            return problem(503, "this server is busy with other searches: try again in a few seconds")
        try:
            return compute()
        except UserError as error:
            return problem(422, str(error))
        finally:
            self._turns.release()


def _when_there(later: Later[T], answer: Callable[[T], Answer]) -> Answer:
    """Answer by a value that takes long; 202 says that it is being computed, and for how long."""
    try:
        return answer(later.value(PATIENCE))
    except TimeoutError:
        told = {"computing": later.what, "seconds": round(later.seconds)}
        return Answer(body=json.dumps(told).encode(), status=202)
    except UserError as error:
        return problem(422, str(error))


def _json(values: dict[str, Any]) -> Answer:
    return Answer(body=json.dumps(values).encode())


def _first(scene: Scene, row: int) -> dict[str, Any]:
    similarities, rows = scene.neighbours(row, row + 1)
    return listed(similarities[0], rows[0])
