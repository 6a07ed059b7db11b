"""Work done ahead of whoever waits for it: in one thread in order, or by many threads with the order kept."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class _Item(Generic[T]):
    value: T


@dataclass(frozen=True)
class _End:
    error: BaseException | None


def ahead(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """Yield ``items``, made in a thread of their own, up to ``depth`` of them before they are asked for.

    An error of theirs is raised after the items before it. When the caller leaves (``close``, or an exception where it
    stands), the thread makes no further item, closes ``items``, and has ended before the caller goes on.

    Args:
        items: made from the first ``next`` on; a generator is only ever run in the thread.
        depth: 1 or more; so many are in memory besides the one that the caller works on.
    """
    ready: SimpleQueue[_Item[T] | _End] = SimpleQueue()
    room = threading.Semaphore(depth)
    left = threading.Event()

    def work() -> None:
        error: BaseException | None = None
        try:
            source = iter(items)
            try:
                while not left.is_set():
                    # Before an item is made, not before it is handed over: one more would be in memory.
                    room.acquire()
                    if left.is_set():
                        break
                    try:
                        made = next(source)
                    except StopIteration:
                        break
                    ready.put(_Item(made))
                    del made
            finally:
                if hasattr(source, "close"):
                    source.close()
        except BaseException as raised:
            error = raised
        ready.put(_End(error))

    # A daemon: should the caller never be closed, the interpreter still ends.
    thread = threading.Thread(target=work, name="diptych-ahead", daemon=True)
    thread.start()
    try:
        while True:
            got = ready.get()
            if isinstance(got, _End):
                if got.error is not None:
                    raise got.error
                return
            room.release()
            yield got.value
            del got
    finally:
        left.set()
        room.release()
        thread.join()


def decode_all(jobs: Iterable[Callable[[], T]], pool: Executor, waiting: int) -> Generator[T, None, None]:
    """Run ``jobs`` in ``pool`` and yield what they return, in their order.

    Args:
        jobs: taken from their iterator one by one, in the caller's thread, as results are asked for.
        pool: whose threads run them.
        waiting: 1 or more; so many are under way or done and not yet yielded.
    """
    under_way: deque[Future[T]] = deque()
    try:
        for job in jobs:
            under_way.append(pool.submit(job))
            if len(under_way) >= waiting:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        for future in under_way:
            future.cancel()
