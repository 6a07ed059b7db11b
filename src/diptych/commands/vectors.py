"""Commands that use what was learned: ``embed``, ``search``, ``duplicates``, ``outliers``, ``select-labels``."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from diptych import api
from diptych.commands.parsing import Switch, parse, tell
from diptych.config import to_dict
from diptych.progress import Terminal
from diptych.vectors.embed import EmbedConfig
from diptych.vectors.listing import refuse_to_replace, write_csv
from diptych.vectors.outliers import NEIGHBOURS
from diptych.vectors.select_labels import DEFAULT, read_labelled
from diptych.vectors.told import (
    CHOICE_COLUMNS,
    OUTLIER_COLUMNS,
    choice_rows,
    choices_as_text,
    outlier_rows,
    outliers_as_text,
)

File = Annotated[str | None, arg(metavar="FILE")]
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
    done = api.embed(args.run, args.data, args.out, device=args.device, terminal=Terminal(), **asked)
    paths = {"path": str(done.path), "quarantine": str(done.quarantine) if done.quarantine else None}
    value = to_dict(done) | paths | {"pictures_per_second": done.pictures_per_second}
    tell(args.json, value, f"{done.path}: {done.sentence}")
    return 0


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
        refuse_to_replace(Path(args.out), overwrite=args.overwrite)
    found = api.outliers(api.read_vectors(args.vectors), top=args.top, neighbours=args.neighbours)
    if args.out:
        write_csv(Path(args.out), OUTLIER_COLUMNS, outlier_rows(found))
    tell(args.json, found.to_dict(), outliers_as_text(found))
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
    """Names of pictures that have a label already: one a line, or a CSV file with a column name."""
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
        refuse_to_replace(Path(args.out), overwrite=args.overwrite)
    chosen = api.select_labels(
        api.read_vectors(args.vectors),
        args.budget,
        method=args.method,
        labelled=read_labelled(args.labelled) if args.labelled else (),
        ignore_labels=args.ignore_labels,
        seed=args.seed,
    )
    if args.out:
        write_csv(Path(args.out), CHOICE_COLUMNS, choice_rows(chosen))
    tell(args.json, chosen.to_dict(), choices_as_text(chosen, args.out))
    return 0
