"""Commands that hand on what was learned: ``explore``, ``export``, ``push``."""

import sys
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

import diptych
from diptych.api.maps import vectors_for
from diptych.commands.parsing import Folder, Switch, parse, tell
from diptych.config import to_dict
from diptych.errors import UserError, check, typed
from diptych.explorer.explore import SIDE, SMALLEST
from diptych.explorer.server import PORT
from diptych.progress import Terminal
from diptych.runs import RunFolder

Text = Annotated[str | None, arg(metavar="TEXT")]
Data = Annotated[str | None, arg(metavar="DATA")]


@dataclass(frozen=True, kw_only=True)
class ExploreArgs:
    """The map of your pictures, in the browser: a page on this machine alone, until Ctrl-C."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """A finished run; or a file that `diptych embed` wrote, without DATA."""
    data: Annotated[Positional[str | None], arg(metavar="DATA")] = None
    """A folder, archive or list of pictures, hub:NAME, cifar10 or photos; their vectors are kept in RUN/vectors/."""
    layout: Literal["pca", "umap"] = "pca"
    """pca at once, or umap (an extra), which takes minutes for 50,000 pictures."""
    port: int = PORT
    """Where to listen on 127.0.0.1; the next free one where it is in use, any free one for 0."""
    browser: bool = True
    """Open the page in the browser."""
    static: Folder = None
    """Write the map to this folder instead: its index.html opens without a server, and holds all pictures, small."""
    thumbnail: int = SIDE
    """Pixels of the longer side of the pictures there, at most."""
    overwrite: Switch = False
    """Replace an earlier map that lies at --static."""
    seed: int = 0
    """Accepted by every command; a map draws nothing at random."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    json: Switch = False
    """Print the address, or the file, as JSON on standard output."""

    def __post_init__(self) -> None:  # before pictures are embedded, which takes its time
        check(self, "0..65535", lambda port: 0 <= port <= 65535, "port")
        check(self, f"{SMALLEST} pixels or more", lambda side: side >= SMALLEST, "thumbnail")


def explore(words: list[str]) -> int:
    """Run `diptych explore`; returns the exit code."""
    args, terminal = parse("explore", ExploreArgs, words), Terminal()
    if args.data is None and RunFolder(args.run).config.is_file():
        raise UserError(f"say which pictures to show: type {typed('diptych explore', args.run, 'DATA')}")
    vectors = vectors_for(args.run, args.data, args.device, terminal)
    if args.static:
        page = diptych.export_map(
            vectors,
            args.static,
            layout=args.layout,
            side=args.thumbnail,
            overwrite=args.overwrite,
            terminal=terminal,
        )
        tell(args.json, {"page": str(page)}, str(page))
        return 0
    server = diptych.explore(
        vectors,
        layout=args.layout,
        port=args.port,
        open_browser=args.browser,
        device=args.device,
        terminal=terminal,
    )
    tell(args.json, {"address": server.address}, f"{server.address}   (Ctrl-C ends it)")
    sys.stdout.flush()  # somebody may be waiting for it
    server.wait()
    return 0


@dataclass(frozen=True, kw_only=True)
class ExportArgs:
    """Hand the backbone on as one file (a folder for timm), which carries how pictures are brought to it."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """A finished run."""
    to: Annotated[str, arg(metavar="FORM")]
    """timm, safetensors, onnx or torch-export."""
    out: Annotated[str, arg(metavar="FILE")]
    """NAME.safetensors, NAME.onnx or NAME.pt2; of timm's form, a folder."""
    licence: Text = None
    """Under which others may use the weights; `not stated` if not given."""
    data: Data = None
    """Pictures to compare on; the run's own, or else the bundled photographs, if not given."""
    data_dir: Folder = None
    """Where the archive of a named data set lies."""
    overwrite: Switch = False
    """Replace the file at --out, or the folder that an earlier export left there."""
    seed: int = 0
    """Accepted by every command; an export draws nothing at random."""
    json: Switch = False
    """Print the result as JSON on standard output."""


def export(words: list[str]) -> int:
    """Run `diptych export`; returns the exit code."""
    args = parse("export", ExportArgs, words)
    done = diptych.export(
        args.run,
        args.out,
        to=args.to,
        licence=args.licence,
        data=args.data,
        data_dir=args.data_dir,
        overwrite=args.overwrite,
        terminal=Terminal(),
    )
    text = (
        f"{done.path}: {done.sentence} ({done.compared_on})\nLicence: {done.card.licence}. It takes {done.card.takes}"
    )
    tell(args.json, to_dict(done) | {"path": str(done.path)}, text)
    return 0


@dataclass(frozen=True, kw_only=True)
class PushArgs:
    """Send the backbone to the Hugging Face hub, with a model card that says what was measured."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """A finished run."""
    repo: Annotated[Positional[str], arg(metavar="REPO")]
    """The repository, USER/NAME; one that is not there is made."""
    dry_run: Folder = None
    """Write what would be sent to this folder, and send nothing."""
    public: Switch = False
    """A repository that is made can be seen by everybody; without it, it is private."""
    licence: Text = None
    """Under which others may use the weights; `not stated` if not given."""
    data: Data = None
    """Pictures to compare on; the run's own, or else the bundled photographs, if not given."""
    data_dir: Folder = None
    """Where the archive of a named data set lies."""
    seed: int = 0
    """Accepted by every command; nothing is drawn at random."""
    json: Switch = False
    """Print the result as JSON on standard output."""


def push(words: list[str]) -> int:
    """Run `diptych push`; returns the exit code."""
    args = parse("push", PushArgs, words)
    done = diptych.push(
        args.run,
        args.repo,
        dry_run=args.dry_run,
        public=args.public,
        licence=args.licence,
        data=args.data,
        data_dir=args.data_dir,
        terminal=Terminal(),
    )
    value = to_dict(done) | {"folder": str(done.folder) if done.folder else None}
    tell(args.json, value, f"{done.address or done.folder}: {done.sentence}")
    return 0
