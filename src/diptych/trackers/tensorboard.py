"""TensorBoard: event files in ``RUN/tensorboard``; nothing leaves the machine."""

import json
from collections.abc import Mapping

from torch.utils.tensorboard import SummaryWriter

from diptych.trackers.base import Tracked, Tracker

FOLDER = "tensorboard"


def begin(run: Tracked) -> Tracker:
    """Write events into ``RUN/tensorboard``; a run that goes on hides those of the steps that it takes again."""
    writer = SummaryWriter(str(run.folder / FOLDER), purge_step=run.step if run.known else None)
    if not run.known:
        run.keep(FOLDER)
        # TensorBoard renders Markdown: an indented block is shown as it is.
        text = "\n".join("    " + line for line in json.dumps(run.config, indent=2, ensure_ascii=False).splitlines())
        writer.add_text("configuration", text)
    return _TensorBoard(writer)


class _TensorBoard:
    def __init__(self, writer: SummaryWriter) -> None:
        self._writer = writer

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self, status: str) -> None:
        self._writer.close()
