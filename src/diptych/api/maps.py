"""Maps: ``explore`` and ``export_map``, and the vectors for them."""

from pathlib import Path

from diptych.api.vectors import embed
from diptych.evaluation.run import default_name
from diptych.explorer.explore import SIDE, export_static
from diptych.explorer.explore import explore as _explore
from diptych.explorer.layout import Kind
from diptych.explorer.opening import surroundings
from diptych.explorer.server import PORT, Server
from diptych.progress import Terminal
from diptych.runs import RunFolder
from diptych.vectors.pictures import is_fresh
from diptych.vectors.table import Vectors, read_vectors


def vectors_for(
    run_or_vectors: str, data: str | None, device: str = "auto", terminal: Terminal | None = None
) -> Vectors:
    """Read vectors, or embed the pictures of ``data`` by a run, into ``RUN/vectors/``, where they are found again.

    Args:
        run_or_vectors: a run folder, or a file that ``embed`` wrote.
        data: as for ``pretrain``; None for a file of vectors.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        terminal: where to speak; silent if None.

    Raises:
        UserError: with one line that says what to change.
    """
    if data is None:
        return read_vectors(run_or_vectors)
    kept = RunFolder.open(run_or_vectors).path / "vectors" / f"{default_name(data, 'standard')}.npy"
    if kept.exists() and is_fresh(kept, run_or_vectors, data):
        return read_vectors(kept)
    embed(run_or_vectors, data, kept, device=device, terminal=terminal, overwrite=kept.exists())
    return read_vectors(kept)


def explore(
    vectors: Vectors,
    *,
    layout: Kind = "pca",
    port: int = PORT,
    open_browser: bool = True,
    device: str = "auto",
    terminal: Terminal | None = None,
) -> Server:
    """Show the map of some pictures in browsers on this machine, until the server is closed.

    Args:
        vectors: of ``read_vectors``; their card says where pictures and network are.
        layout: ``pca`` at once, or ``umap`` (an extra), which takes minutes for 50,000 pictures.
        port: where to listen on 127.0.0.1; the next free one where it is in use, any free one for 0.
        open_browser: open the page, where there is a browser.
        device: for pictures from outside: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        terminal: where to speak; silent if None.

    Returns:
        The server, which listens already: ``address``, ``wait()``, ``close()``.

    Raises:
        UserError: with one line that says what to change.
    """
    terminal = terminal or Terminal(quiet=True)
    beside = surroundings(vectors, device, terminal)
    return _explore(
        vectors,
        beside.pictures,
        layout=layout,
        splits=beside.splits,
        embed=beside.embed,
        port=port,
        open_browser=open_browser,
        terminal=terminal,
    )


def export_map(
    vectors: Vectors,
    out: str | Path,
    *,
    layout: Kind = "pca",
    side: int = SIDE,
    overwrite: bool = False,
    terminal: Terminal | None = None,
) -> Path:
    """Write the map of some pictures as a folder that opens in a browser without a server.

    Args:
        vectors: as for ``explore``, and so ``layout``.
        out: the folder, not there yet or empty. It holds small copies of all pictures, and their names.
        layout: see there.
        side: pixels of the longer side of a picture, at most.
        overwrite: delete an earlier map that lies at ``out``.
        terminal: where to speak; silent if None.

    Returns:
        The path of its ``index.html``.

    Raises:
        UserError: with one line that says what to change.
    """
    terminal = terminal or Terminal(quiet=True)
    beside = surroundings(vectors, "cpu", terminal)
    return export_static(
        vectors,
        beside.pictures,
        out,
        layout=layout,
        splits=beside.splits,
        side=side,
        overwrite=overwrite,
        terminal=terminal,
    )
