import gc
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from diptych.data.prefetch import ahead, decode_all


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "diptych-ahead"]


class Numbers:
    """Counts up, and remembers what was asked of it."""

    def __init__(self, end=1000, fail_at=None):
        self.end, self.fail_at, self.made, self.closed, self.thread = end, fail_at, 0, False, None

    def __iter__(self):
        self.thread = threading.current_thread()
        try:
            for number in range(self.end):
                if number == self.fail_at:
                    raise ValueError(f"no {number}")
                self.made += 1
                yield number
        finally:
            self.closed = True


def wait_until(true):
    end = time.monotonic() + 20
    while not true() and time.monotonic() < end:
        time.sleep(0.002)
    assert true()


@pytest.mark.parametrize("depth", [1, 3, 100])
def test_everything_in_order_from_another_thread(depth):
    numbers = Numbers(20)
    assert list(ahead(numbers, depth)) == list(range(20))
    assert numbers.thread is not threading.main_thread() and numbers.closed and not threads()


@pytest.mark.parametrize("depth", [1, 3])
def test_so_many_are_made_ahead_and_no_more(depth):
    numbers = Numbers()
    made = ahead(numbers, depth)
    assert numbers.made == 0
    for number in range(5):
        assert next(made) == number
        wait_until(lambda: numbers.made == number + 1 + depth)  # noqa: B023
    time.sleep(0.05)
    assert numbers.made == 5 + depth
    made.close()


def test_an_error_comes_after_what_was_made_before_it():
    made = ahead(Numbers(fail_at=3), 10)
    assert [next(made) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="no 3"):
        next(made)
    assert not threads() and list(made) == []


def test_leaving_ends_the_thread_and_closes_the_items():
    numbers = Numbers()
    kept = iter(numbers)
    made = ahead(kept, 2)
    next(made)
    made.close()
    assert numbers.closed and numbers.made <= 4 and not threads()


def test_leaving_by_an_exception_or_by_forgetting():
    numbers = Numbers()
    with pytest.raises(KeyError):
        for number in ahead(numbers, 2):
            raise KeyError(number)
    gc.collect()
    assert numbers.closed and not threads()


def test_nothing_starts_before_the_first_item_is_asked_for():
    numbers = Numbers()
    ahead(numbers, 2).close()
    assert numbers.made == 0 and not threads()


def test_an_interpreter_that_ends_in_the_middle_does_not_hang():
    code = "from diptych.data.prefetch import ahead; import itertools; kept = ahead(itertools.count(), 2); next(kept)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_jobs_run_side_by_side_and_keep_their_order():
    both = threading.Barrier(2, timeout=20)

    def job(number):
        both.wait()  # neither goes on alone
        return number

    with ThreadPoolExecutor(2) as pool:
        assert list(decode_all(((lambda n=n: job(n)) for n in range(8)), pool, 4)) == list(range(8))


def test_jobs_are_taken_as_results_are_asked_for():
    taken = []

    def jobs():
        for number in range(20):
            taken.append(number)
            yield lambda number=number: number

    with ThreadPoolExecutor(2) as pool:
        results = decode_all(jobs(), pool, 3)
        for number in range(5):
            assert next(results) == number and len(taken) == number + 3
        results.close()
    assert len(taken) == 7


def test_an_error_of_a_job_is_raised_in_its_place_and_the_rest_given_up():
    started, free = [], threading.Event()

    def job(number):
        started.append(number)
        if number == 1:
            raise ValueError("no")
        if number > 1:
            free.wait(20)
        return number

    with ThreadPoolExecutor(1) as pool:
        results = decode_all(((lambda n=n: job(n)) for n in range(10)), pool, 9)
        assert next(results) == 0
        with pytest.raises(ValueError, match="no"):
            next(results)
        free.set()
    assert max(started) <= 2
