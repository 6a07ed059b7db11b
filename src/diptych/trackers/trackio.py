"""trackio, Hugging Face's local tracker. Its own variables hold: ``TRACKIO_DIR``, ``TRACKIO_SPACE_ID`` and the rest."""

import contextlib
import secrets
import sys
from collections.abc import Mapping
from typing import Any

import trackio

from diptych.trackers.base import PROJECT, Tracked, Tracker


def begin(run: Tracked) -> Tracker:
    """Begin a trackio run, or go on with it: trackio knows runs by their names, so each gets one of its own."""
    name = run.known or f"{run.name}-{secrets.token_hex(3)}"
    run.keep(name)
    with contextlib.redirect_stdout(sys.stderr):  # standard output holds results alone
        begun = trackio.init(
            PROJECT, name, config=dict(run.config), resume="allow", embed=False, auto_log_cpu=False, auto_log_gpu=False
        )
    return _Trackio(begun)


class _Trackio:
    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self, status: str) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self._run.finish()
