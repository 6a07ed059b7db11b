"""The explorer as one folder that opens without a server: ``index.html`` and its data as scripts.

::

    OUT/  .diptych-explorer           the marker: this folder is ours, so --overwrite may delete it
          index.html, explorer.js, explorer.css, icon.svg, LICENSES.txt
          data/scene.js, positions.js, names.js, scheme-NAME.js
          data/pictures-0.js          CHUNK small pictures
          data/neighbours-0.js        the neighbours of NEIGHBOUR_CHUNK pictures: nothing can search for them later

A page that is opened as a file may fetch nothing, but it may load scripts from its folder. Each hands over one value.
"""

import base64
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from diptych.errors import RunFolderError, UserError
from diptych.explorer.files import page_files
from diptych.explorer.scene import Scene
from diptych.progress import Bar, Terminal
from diptych.runs import writing_errors, writing_folder

CHUNK = 256
"""Pictures in one file: what pointing at a dot has to load."""
NEIGHBOUR_CHUNK = 4096
MARKER = ".diptych-explorer"
ADVICE = "choose another --static folder"
POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file:; img-src 'self' file: data: blob:; "
    "base-uri 'none'; form-action 'none'"
)
"""``'self'`` alone is not enough: browsers do not agree on what it is for a page that is a file."""


def write_static(scene: Scene, out: str | Path, *, side: int, overwrite: bool, terminal: Terminal) -> Path:
    """Write the folder whole or not at all.

    Args:
        scene: what is shown.
        out: the folder, not there yet or empty.
        side: pixels of the longer side of a picture, at most.
        overwrite: delete an earlier export that lies there.
        terminal: where to show progress.

    Returns:
        The path of its ``index.html``.

    Raises:
        RunFolderError: there is something at ``out``, or it cannot be written.
    """
    refuse_to_replace(Path(out), overwrite=overwrite)
    folder = Path(os.path.realpath(out))  # what a link leads to is replaced, not the link
    with writing_folder(folder, ADVICE, typed_as=Path(out)) as temporary:
        (temporary / "data").mkdir()
        (temporary / MARKER).write_text("An exported explorer of diptych; `--overwrite` may delete this folder.\n")
        for name, content in page_files().items():
            (temporary / name).write_bytes(_for_files(content) if name == "index.html" else content)
        with terminal.bar("exporting", 2 * len(scene.vectors)) as bar:
            for name, value in _data(scene, side, bar, terminal):
                text = f"diptychGive({json.dumps(name)}, {value});\n"
                (temporary / "data" / f"{name}.js").write_text(text, encoding="ascii")
        refuse_to_replace(Path(out), overwrite=overwrite)  # minutes have passed
    return Path(out) / "index.html"


def refuse_to_replace(folder: Path, *, overwrite: bool) -> None:
    """Look at where an export is to go, before minutes are spent on it.

    Raises:
        RunFolderError: something lies there that may not be replaced.
    """
    with writing_errors(folder, ADVICE):
        whole = Path(os.path.realpath(folder))
        if Path.cwd().is_relative_to(whole):
            raise RunFolderError(f"{folder} is the folder that you are in, or holds it: {ADVICE}")
        if whole.is_symlink():
            raise RunFolderError(f"{folder} is a link that leads back to itself: {ADVICE}")
        if not whole.exists() or (whole.is_dir() and not any(whole.iterdir())):
            return
    if not (folder / MARKER).is_file():
        raise RunFolderError(f"{folder} is there already and is no exported explorer: {ADVICE}")
    if not overwrite:
        raise RunFolderError(f"{folder} is there already: {ADVICE}, or add --overwrite")


def _for_files(page: bytes) -> bytes:
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    return page.replace(b"<!-- policy -->", policy.encode(), 1).replace(b'data-from="server"', b'data-from="files"', 1)


def _data(scene: Scene, side: int, bar: Bar, terminal: Terminal) -> Iterator[tuple[str, str]]:
    """Yield the name and the value, as JSON in ASCII, of each file of data."""
    about, count = scene.about(places=False), len(scene.vectors)
    done = 0
    usable = []
    for scheme in about["schemes"]:
        try:
            value = scene.schemes[scheme["name"]].colouring().to_dict()
        except UserError as error:
            terminal.say(f"without colours by {scheme['title']}: {error}")
            continue
        usable.append(scheme)
        yield f"scheme-{scheme['name']}", json.dumps(value)
    yield "scene", json.dumps({**about, "schemes": usable})
    yield "positions", json.dumps(_base64(scene.positions()))
    yield "names", scene.names()
    for chunk, start in enumerate(range(0, count, NEIGHBOUR_CHUNK)):
        end = min(count, start + NEIGHBOUR_CHUNK)
        yield f"neighbours-{chunk}", json.dumps(_neighbours(scene, start, end))
        bar.update(done := done + end - start)
    if scene.pictures is None:
        return
    with ThreadPoolExecutor() as threads:
        for chunk, start in enumerate(range(0, count, CHUNK)):
            rows = range(start, min(count, start + CHUNK))
            found = threads.map(lambda row: scene.picture(row, side), rows)
            yield f"pictures-{chunk}", json.dumps([None if one is None else _base64(one) for one in found])
            bar.update(done := done + len(rows))


def _neighbours(scene: Scene, start: int, end: int) -> dict[str, Any]:
    similarities, rows = scene.neighbours(start, end)
    return {
        "count": rows.shape[1],
        "rows": _base64(rows.astype("<u4").tobytes()),
        "similarities": _base64(similarities.astype("<f4").tobytes()),
    }


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
