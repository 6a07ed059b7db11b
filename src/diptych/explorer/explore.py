"""The two ways to look at a map: a server for as long as it is wanted, or a folder to keep and to pass on."""

from collections.abc import Sequence
from pathlib import Path

from diptych.data.sources.source import Source
from diptych.errors import ConfigError
from diptych.explorer.export import refuse_to_replace, write_static
from diptych.explorer.layout import Kind
from diptych.explorer.scene import Embed, compose
from diptych.explorer.server import PORT, Server, show
from diptych.progress import Terminal
from diptych.vectors.table import Vectors

SIDE = 96
"""Pixels of the longer side of a picture in an export."""
SMALLEST = 16
"""Below it nothing can be told from a picture."""
SLOW = "laying out by UMAP: this takes minutes for 50,000 pictures"


def explore(
    vectors: Vectors,
    pictures: Source | None,
    *,
    layout: Kind = "pca",
    splits: Sequence[str | None] | None = None,
    embed: Embed | None = None,
    title: str | None = None,
    port: int = PORT,
    open_browser: bool = True,
    terminal: Terminal | None = None,
) -> Server:
    """Show the map of some pictures to browsers on this machine.

    Args:
        vectors: of the pictures.
        pictures: picture i belongs to vector i; None where they are not at hand.
        layout: ``pca`` at once, or ``umap`` (an extra), which takes minutes for 50,000 pictures.
        splits: the part of each picture (train, test); None where they are not divided.
        embed: makes a vector of a picture from outside ``(C, H, W)``; None where the backbone is not at hand.
        title: for people; found from the pictures if None.
        port: where to listen on 127.0.0.1; the next free one where it is in use, any free one for 0.
        open_browser: open the page, where there is a browser.
        terminal: where to speak; silent if None.

    Returns:
        The server, which listens already; its ``address`` holds the random token. ``wait()`` goes on until Ctrl-C.

    Raises:
        UserError: with one line that says what to change.
    """
    terminal = terminal or Terminal(quiet=True)
    scene = compose(vectors, pictures, layout=layout, splits=splits, embed=embed, title=title)
    if layout == "umap":
        terminal.say(f"{SLOW}; the page shows the map as soon as it is there")
    server = Server(scene, port)
    if server.note:
        terminal.say(server.note)
    if open_browser and not show(server.address):
        tunnel = f"ssh -L {server.port}:127.0.0.1:{server.port}"
        terminal.say(
            f"no browser was found here: open the address yourself, on this machine or through `{tunnel} HOST`"
        )
    return server


def export_static(
    vectors: Vectors,
    pictures: Source | None,
    out: str | Path,
    *,
    layout: Kind = "pca",
    splits: Sequence[str | None] | None = None,
    title: str | None = None,
    side: int = SIDE,
    overwrite: bool = False,
    terminal: Terminal | None = None,
) -> Path:
    """Write the map as a folder that opens in a browser without a server.

    It holds small copies of all pictures and their names: whoever gets the folder sees them.

    Args:
        vectors: as for ``explore``, and so ``pictures``, ``layout``, ``splits`` and ``title``.
        pictures: see there.
        out: the folder, not there yet or empty.
        layout: see there.
        splits: see there.
        title: see there.
        side: pixels of the longer side of a picture, at most.
        overwrite: delete an earlier export that lies at ``out``.
        terminal: where to show progress; silent if None.

    Returns:
        The path of its ``index.html``.

    Raises:
        UserError: with one line that says what to change.
    """
    if side < SMALLEST:
        raise ConfigError(f"--thumbnail must be {SMALLEST} pixels or more, not {side}")
    refuse_to_replace(Path(out), overwrite=overwrite)
    terminal = terminal or Terminal(quiet=True)
    scene = compose(vectors, pictures, layout=layout, splits=splits, title=title)
    if layout == "umap":
        terminal.say(SLOW)
        scene.layout.value()
    return write_static(scene, out, side=side, overwrite=overwrite, terminal=terminal)
