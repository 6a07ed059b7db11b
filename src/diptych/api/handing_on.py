"""Handing on: ``push``."""

from pathlib import Path

from diptych.evaluation.segmentation.table import as_text as _segmentation_as_text
from diptych.evaluation.table import as_text as _as_text
from diptych.handoff.push import Pushed
from diptych.handoff.push import push as _push
from diptych.progress import Terminal


def push(
    run: str | Path,
    repo: str,
    *,
    dry_run: str | Path | None = None,
    licence: str | None = None,
    public: bool = False,
    data: str | None = None,
    data_dir: str | None = None,
    terminal: Terminal | None = None,
) -> Pushed:
    """Send the backbone of a run to the Hugging Face hub, with a model card that says what was measured.

    Args:
        run: a finished run.
        repo: ``USER/NAME``; one that is not there is made.
        dry_run: a folder to write what would be sent to, and nothing is sent.
        licence: under which others may use the weights.
        public: one that is made can be seen by everybody.
        data: pictures to compare on; the run's own, or else the bundled photographs, if None.
        data_dir: where the archive of a named data set lies.
        terminal: where to speak; silent if None.

    Raises:
        UserError: with one line that says what to change.
    """
    return _push(
        run,
        repo,
        told=lambda result: _segmentation_as_text(result) if result.get("task") == "segmentation" else _as_text(result),
        dry_run=dry_run,
        licence=licence,
        public=public,
        data=data,
        data_dir=data_dir,
        terminal=terminal,
    )
