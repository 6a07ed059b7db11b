"""A value that takes seconds or minutes: computed once, beside the server's own work, when it is first asked for."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Later(Generic[T]):
    """Computes in a thread of its own, so that whoever waits may give up and ask again.

    Args:
        what: is computed, for people.
        compute: makes it.
    """

    def __init__(self, what: str, compute: Callable[[], T]) -> None:
        self.what = what
        self._compute, self._lock = compute, threading.Lock()
        self._found: Future[T] | None = None
        self._started = 0.0

    @property
    def seconds(self) -> float:
        """How long it has been computed so far."""
        return time.monotonic() - self._started if self._found else 0.0

    def value(self, patience: float | None = None) -> T:
        """Return the value, computed now if it was not yet.

        Args:
            patience: seconds to wait for it; without end if None.

        Raises:
            TimeoutError: it is not there yet.
            Exception: whatever the computation raised.
        """
        with self._lock:
            if self._found is None:
                self._started, self._found = time.monotonic(), Future()
                threading.Thread(target=self._run, args=(self._found,), daemon=True).start()
        return self._found.result(patience)

    def _run(self, found: "Future[T]") -> None:
        try:
            found.set_result(self._compute())
        except BaseException as error:  # whoever waits has to hear of it
            found.set_exception(error)
