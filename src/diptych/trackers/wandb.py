"""Weights & Biases. Its own variables hold: ``WANDB_PROJECT``, ``WANDB_ENTITY``, ``WANDB_MODE=offline`` and the rest.

Its client would also send the code's git state, the packages, the machine and all that is printed; it is told not to.
"""

import os
import secrets
from collections.abc import Mapping
from typing import Any

import wandb

from diptych.trackers.base import OVER, PROJECT, Tracked, Tracker, TrackerError


def begin(run: Tracked) -> Tracker:
    """Begin a W&B run, or go on with the one whose id the run folder keeps; its files lie in ``RUN/wandb``.

    Raises:
        TrackerError: nobody is logged in. The client would ask for a key, in the midst of the training.
    """
    if wandb.setup().settings.mode == "online" and not wandb.login(prompt=False, verify=False):
        raise TrackerError("no W&B account is known here: type `wandb login`, or set WANDB_MODE=offline")
    name = run.known or secrets.token_hex(4)
    run.keep(name)
    begun = wandb.init(
        project=os.environ.get("WANDB_PROJECT") or PROJECT,
        id=name,
        resume="allow",
        name=run.name,
        dir=str(run.folder),
        config=dict(run.config),
        settings=wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            silent=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        ),
    )
    # W&B's own step may never go back, as ours does where a run goes on from its last checkpoint.
    begun.define_metric("step")
    begun.define_metric("*", step_metric="step")
    return _Wandb(begun)


class _Wandb:
    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def close(self, status: str) -> None:
        self._run.finish(exit_code=0 if status in OVER else 1)
