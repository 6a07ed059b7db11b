"""Commands that use what was learned: ``embed``, ``search``, ``duplicates``, ``outliers``, ``select-labels``."""

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

import diptych
from diptych.commands.parsing import Switch, parse, tell
from diptych.config import to_dict
from diptych.errors import ConfigError
from diptych.progress import Terminal
from diptych.vectors.embed import EmbedConfig
from diptych.vectors.index import build_index, open_index
from diptych.vectors.listing import write_csv
from diptych.vectors.lists import refuse_written, write_groups, write_keep_list
from diptych.vectors.outliers import COLUMNS as OUTLIER_COLUMNS
from diptych.vectors.outliers import NEIGHBOURS
from diptych.vectors.search import MANY
from diptych.vectors.search_page import write_page
from diptych.vectors.select_labels import COLUMNS as CHOICE_COLUMNS
from diptych.vectors.select_labels import DEFAULT, read_labelled

File = Annotated[str | None, arg(metavar="FILE")]
LISTS = (".txt", ".lst")
VectorsFile = Annotated[Positional[str], arg(metavar="VECTORS")]


@dataclass(frozen=True, kw_only=True)
class EmbedArgs(EmbedConfig):
    """Turn any number of pictures into vectors, in constant memory; the same command goes on after an interruption."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """A finished run."""
    data: Annotated[Positional[str], arg(metavar="DATA")]
    """A folder, archive or list of pictures, hub:NAME, cifar10 or photos."""
    out: Annotated[str, arg(metavar="FILE")]
    """Where the vectors go: NAME.parquet, or NAME.npy with NAME.json and NAME.jsonl beside it."""
    seed: int = 0
    """Accepted by every command; nothing depends on it."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    json: Switch = False
    """Print the result as JSON on standard output."""


def embed(words: list[str]) -> int:
    """Run `diptych embed`; returns the exit code."""
    args = parse("embed", EmbedArgs, words)
    asked = {field.name: getattr(args, field.name) for field in fields(EmbedConfig)}
    done = diptych.embed(args.run, args.data, args.out, device=args.device, terminal=Terminal(), **asked)
    paths = {"path": str(done.path), "quarantine": str(done.quarantine) if done.quarantine else None}
    value = to_dict(done) | paths | {"pictures_per_second": done.pictures_per_second}
    tell(args.json, value, f"{done.path}: {done.sentence}")
    return 0


@dataclass(frozen=True, kw_only=True)
class SearchArgs:
    """The pictures most like one: by cosine similarity, exact, or by an index where there are very many."""

    vectors: VectorsFile
    """A file that `diptych embed` wrote."""
    query: Annotated[Positional[str | None], arg(metavar="QUERY")] = None
    """The name of a picture of the set, or the file of another; may be left out where an index is built."""
    k: Annotated[int | None, arg(aliases=["-k"])] = None
    """How many to find; 20 if not given."""
    html: File = None
    """A page to write, which shows them."""
    index: Annotated[str | None, arg(metavar="FILE.faiss")] = None
    """An index to search by, for a million pictures or more; built where it is not there yet."""
    overwrite: Switch = False
    """Replace --html, and build --index anew."""
    seed: int = 0
    """Accepted by every command; nothing depends on it."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    json: Switch = False
    """Print the result as JSON on standard output."""


def search(words: list[str]) -> int:
    """Run `diptych search`; returns the exit code."""
    args = parse("search", SearchArgs, words)
    page = refuse_written("--html", args.html, (".html",), overwrite=args.overwrite) if args.html else None
    if args.query is None and (args.index is None or page):
        raise ConfigError("say what to search for: the name of a picture of the set, or a file")
    terminal, vectors, index = Terminal(), diptych.read_vectors(args.vectors), None
    if args.index and (args.overwrite or not os.path.exists(args.index)):
        index = build_index(args.index, vectors, overwrite=args.overwrite, terminal=terminal)
    elif args.index:
        index = open_index(args.index, vectors)
    elif len(vectors) > MANY:
        terminal.say(f"{len(vectors):,} vectors are compared one by one; --index NAME.faiss is quicker")
    if args.query is None:
        assert index is not None
        tell(args.json, {"index": str(index.path), **to_dict(index.card)}, f"search {index.sentence}")
        return 0
    found = diptych.search(vectors, args.query, args.k, index=index, device=args.device)
    if page:
        write_page(page, found, vectors, args.query)
    tell(args.json, found.to_dict(), found.as_text())
    return 0


@dataclass(frozen=True, kw_only=True)
class DuplicatesArgs:
    """Groups of near-duplicates, and which picture of each to keep."""

    vectors: VectorsFile
    """A file that `diptych embed` wrote."""
    threshold: str = "auto"
    """The cosine, -1..1, from which two pictures are near-duplicates; auto takes what is nearer
    than chance brings pictures, by how densely others lie."""
    out: File = None
    """A CSV file to write the groups to."""
    keep_list: File = None
    """A list to write of all pictures but the copies, NAME.txt; where they are files, pretrain takes it."""
    overwrite: Switch = False
    """Replace --out and --keep-list."""
    seed: int = 0
    """Accepted by every command; nothing depends on it."""
    json: Switch = False
    """Print the result as JSON on standard output."""


def duplicates(words: list[str]) -> int:
    """Run `diptych duplicates`; returns the exit code."""
    args = parse("duplicates", DuplicatesArgs, words)
    again = args.overwrite
    out = refuse_written("--out", args.out, (".csv",), overwrite=again) if args.out else None
    keep = refuse_written("--keep-list", args.keep_list, LISTS, overwrite=again) if args.keep_list else None
    vectors = diptych.read_vectors(args.vectors)
    found = diptych.duplicates(vectors, _threshold(args.threshold))
    if out:
        write_groups(out, found)
    if keep:
        write_keep_list(keep, found, vectors)
    tell(args.json, found.to_dict(), found.as_text())
    return 0


def _threshold(typed: str) -> float | Literal["auto"]:
    if typed == "auto":
        return "auto"
    try:
        return float(typed)
    except ValueError as error:
        raise ConfigError(f"--threshold must be auto or a cosine, -1..1, not '{typed}'") from error


@dataclass(frozen=True, kw_only=True)
class OutliersArgs:
    """What is odd? The pictures that lie where vectors are sparser than around their neighbours."""

    vectors: VectorsFile
    """A file that `diptych embed` wrote."""
    top: int = 50
    """How many to list."""
    neighbours: int = NEIGHBOURS
    """How many neighbours' densities a picture is compared with."""
    out: File = None
    """A CSV file to write the list to."""
    overwrite: Switch = False
    """Replace --out."""
    seed: int = 0
    """Accepted by every command; nothing is drawn at random."""
    json: Switch = False
    """Print the result as JSON on standard output."""


def outliers(words: list[str]) -> int:
    """Run `diptych outliers`; returns the exit code."""
    args = parse("outliers", OutliersArgs, words)
    if args.out:
        refuse_written("--out", args.out, (".csv",), overwrite=args.overwrite)
    found = diptych.outliers(diptych.read_vectors(args.vectors), top=args.top, neighbours=args.neighbours)
    if args.out:
        write_csv(Path(args.out), OUTLIER_COLUMNS, found.csv_rows())
    tell(args.json, found.to_dict(), found.as_text())
    return 0


@dataclass(frozen=True, kw_only=True)
class SelectLabelsArgs:
    """What to label first, when labels are few: no label is read, only which pictures have one."""

    vectors: VectorsFile
    """A file that `diptych embed` wrote."""
    budget: int
    """How many pictures to choose."""
    method: Annotated[str, arg(metavar="NAME")] = DEFAULT
    """typicality, kcenter or random."""
    labelled: File = None
    """Names of pictures that have a label already: one a line, or a CSV file with a column name; where it has a column
    label, only rows in which that is filled in."""
    ignore_labels: Switch = False
    """Choose as though VECTORS had no labels."""
    out: File = None
    """A CSV file to write the choice to, with a column label to fill in."""
    overwrite: Switch = False
    """Replace --out."""
    seed: int = 0
    """Of everything that is drawn."""
    json: Switch = False
    """Print the result as JSON on standard output."""


def select_labels(words: list[str]) -> int:
    """Run `diptych select-labels`; returns the exit code."""
    args = parse("select-labels", SelectLabelsArgs, words)
    if args.out:
        refuse_written("--out", args.out, (".csv",), overwrite=args.overwrite)
    chosen = diptych.select_labels(
        diptych.read_vectors(args.vectors),
        args.budget,
        method=args.method,
        labelled=read_labelled(args.labelled) if args.labelled else (),
        ignore_labels=args.ignore_labels,
        seed=args.seed,
    )
    if args.out:
        write_csv(Path(args.out), CHOICE_COLUMNS, chosen.csv_rows())
    tell(args.json, chosen.to_dict(), chosen.as_text(args.out))
    return 0
