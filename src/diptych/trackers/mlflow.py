"""MLflow. Its own variables hold: ``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME`` and the rest.

The client is used as an object, so that the host program's own active run and settings are left alone.
"""

import os
import time
from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from diptych.config import flatten
from diptych.trackers.base import OVER, PROJECT, Tracked, Tracker

PARAMS = 100
"""That one call may log."""


def begin(run: Tracked) -> Tracker:
    """Begin an MLflow run, or go on with the one whose id the run folder keeps."""
    client = MlflowClient()
    if run.known:
        client.update_run(run.known, status="RUNNING")
        return _MLflow(client, run.known)
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
    found = client.get_experiment_by_name(experiment)
    place = found.experiment_id if found else client.create_experiment(experiment)
    name = client.create_run(place, run_name=run.name).info.run_id
    run.keep(name)
    params = [Param(key, str(value)) for key, value in flatten(run.config).items()]
    for first in range(0, len(params), PARAMS):
        client.log_batch(name, params=params[first : first + PARAMS])
    return _MLflow(client, name)


class _MLflow:
    def __init__(self, client: Any, name: str) -> None:
        self._client, self._name = client, name

    def log(self, step: int, values: Mapping[str, float]) -> None:
        now = round(1000 * time.time())
        self._client.log_batch(self._name, metrics=[Metric(key, value, now, step) for key, value in values.items()])

    def close(self, status: str) -> None:
        ended = "FINISHED" if status in OVER else "FAILED" if status == "failed" else "KILLED"
        self._client.set_terminated(self._name, status=ended)
