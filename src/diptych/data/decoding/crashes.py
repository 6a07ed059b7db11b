"""A decoder that takes down the whole process: the picture it was at is named all the same.

Decoders are compiled code and run in threads of the training process. Where one crashes, all that Python can still do
is write the stack of each thread (``faulthandler``); so the picture's name is made part of that stack.
"""

import faulthandler
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

T = TypeVar("T")


def _decoding_this_picture(run: Callable[[], Any]) -> Any:
    return run()


def named(name: str, run: Callable[[], T]) -> T:
    """Return ``run()``; in a crash report, the frame around it stands as if in a file that is called ``name``."""
    result: T = FunctionType(_decoding_this_picture.__code__.replace(co_filename=name), {})(run)
    return result


def report_crashes() -> None:
    """Let a crash of this process be reported on standard error, unless it is reported already."""
    if sys.__stderr__ and not faulthandler.is_enabled():
        faulthandler.enable(file=sys.__stderr__)
