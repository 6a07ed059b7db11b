"""Vectors: ``embed``; what reads them takes no more than ``read_vectors`` gives."""

from pathlib import Path

from diptych.api.settings import Setting
from diptych.config import with_settings
from diptych.progress import Terminal
from diptych.vectors.embed import EmbedConfig, Embedded
from diptych.vectors.embed import embed as _embed


def embed(
    run: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    device: str = "auto",
    terminal: Terminal | None = None,
    **settings: Setting,
) -> Embedded:
    """Write the vectors of all pictures of ``data`` to ``out``, or go on with it where it was interrupted.

    Args:
        run: a finished run.
        data: as for ``pretrain``, save tar shards.
        out: ``NAME.parquet`` or ``NAME.npy``; ``read_vectors`` reads it.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        terminal: where to speak; silent if None.
        settings: of ``diptych.vectors.embed.EmbedConfig``, such as ``features="grid"``, ``dtype="float16"``.

    Raises:
        UserError: with one line that says what to change.
    """
    return _embed(run, str(data), out, with_settings(EmbedConfig(), settings), device=device, terminal=terminal)
