"""One function a command: parse, make one library call, print its result.

Standard output holds results alone (one JSON object with ``--json``); progress goes to standard error.
"""

import contextlib
import io
import json
import sys
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

import tyro
from tyro.conf import Positional

from diptych import api
from diptych.errors import UserError, suggest
from diptych.evaluation.table import as_text
from diptych.progress import Terminal
from diptych.recipes.book import entries
from diptych.recipes.book import recipe as find_recipe
from diptych.runs import RunFolder
from diptych.training.config import RunConfig
from diptych.training.run import Order, saved_config

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class PretrainArgs:
    """Where a run goes and how it is started; everything else is the run's configuration."""

    out: str | None = None
    """The run folder to make."""
    recipe: str = "simsiam"
    """The configuration to start from; `diptych recipes` lists them."""
    resume: str | None = None
    """Go on with this run folder instead of starting a new one."""
    overwrite: bool = False
    """Delete the run that lies at --out first."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    json: bool = False
    """Print the result as JSON on standard output."""


def pretrain(words: list[str]) -> int:
    """Run `diptych pretrain`; returns the exit code."""
    helping = bool({"-h", "--help"} & set(words))
    args, rest = _parse_known(PretrainArgs, [word for word in words if word not in ("-h", "--help")])
    if helping:
        return _pretrain_help()
    terminal = Terminal()
    if args.resume:
        config = _parse_config(rest, saved_config(RunFolder.open(args.resume)))
        result = api.resume(args.resume, config=config, device=args.device, terminal=terminal)
        out = args.resume
    else:
        asked = _order(args.recipe, rest, args.out)
        if args.out is None:
            raise UserError("say where the run goes: add `--out runs/NAME`")
        out = args.out
        for choice in asked.choices:
            terminal.say(f"chose {choice.what}: {choice.why}")
        result = api.run_order(asked, out, overwrite=args.overwrite, device=args.device, terminal=terminal)
    summary = (
        f"{out}: {result.status} after {result.epochs:.3g} epochs ({result.steps} steps, {result.seconds:.0f} s, "
        f"{result.images_per_second:.0f} pictures/s), loss {result.loss:.3f}"
    )
    if result.status == "interrupted":
        print(f"{summary}; go on with `diptych pretrain --resume {out}`", file=sys.stderr)
        return 130
    _print(args.json, asdict(result), f"{summary}\nNext: diptych evaluate {out} LABELLED/   Report: {out}/report.html")
    return 0


def _order(recipe: str, words: list[str], out: str | None) -> Order:
    """Parse twice: first for the pictures, which the recipe looks at, then over the recipe's own values."""
    first = _parse_config(words, RunConfig(data=""))
    if not first.data:
        raise UserError(
            "say what to learn from: `diptych pretrain DATA`, with a folder, a .zip, a .tar, cifar10 or photos"
        )
    base = find_recipe(recipe, first.data, first.data_dir, first.limit)
    return api.ordered(base, _parse_config(words, base.config), out)


def _parse_config(words: list[str], default: RunConfig) -> RunConfig:
    return _parse(type(default), words, default)


def _pretrain_help() -> int:

    print("usage: diptych pretrain DATA --out RUN [options]\n       diptych pretrain --resume RUN\n")
    with contextlib.suppress(SystemExit):
        _tyro(PretrainArgs, ["--help"], None)
    with contextlib.suppress(SystemExit):
        print(
            "\nThe run's configuration; a recipe sets each, and these flags change it (shown: the paper's ImageNet settings).\n"
        )
        _tyro(RunConfig, ["--help"], RunConfig(data=""))
    return 0


@dataclass(frozen=True, kw_only=True)
class EvaluateArgs:
    """Did pretraining help? Compares the backbone with its own random initialisation and with raw pixels."""

    run: Positional[str]
    """A finished run."""
    data: Positional[str]
    """Labelled pictures: class subfolders, an archive of them, a CSV `file,label`, cifar10 or photos."""
    data_dir: str | None = None
    """Where the archive of a named data set lies."""
    protocol: Literal["standard", "keras"] = "standard"
    """kNN and a converged linear probe, or the Keras example's own linear probe."""
    limit: int | None = None
    """Use this many pictures of each split, drawn by a fixed seed."""
    seed: int = 0
    """Of the split and of the probes."""
    name: str | None = None
    """Of the result, RUN/evaluation/NAME.json."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    json: bool = False
    """Print the result as JSON on standard output."""


def evaluate(words: list[str]) -> int:
    """Run `diptych evaluate`; returns the exit code."""
    args = _parse(EvaluateArgs, words)

    result = api.evaluate(
        args.run,
        args.data,
        data_dir=args.data_dir,
        protocol=args.protocol,
        limit=args.limit,
        seed=args.seed,
        name=args.name,
        device=args.device,
        terminal=Terminal(),
    )
    _print(args.json, result, as_text(result))
    return 0


@dataclass(frozen=True, kw_only=True)
class PreviewArgs:
    """Draws some pictures beside their two views; takes every flag of pretrain's configuration too."""

    out: str = "views.png"
    """The PNG file to write."""
    recipe: str = "simsiam"
    """The recipe whose views are drawn."""
    json: bool = False
    """Print the result as JSON on standard output."""


def preview(words: list[str]) -> int:
    """Run `diptych preview`; returns the exit code."""
    args, rest = _parse_known(PreviewArgs, words)

    path = api.preview(_order(args.recipe, rest, None), args.out)
    _print(args.json, {"views": str(path)}, str(path))
    return 0


@dataclass(frozen=True, kw_only=True)
class ReportArgs:
    """Rewrites RUN/report.html from what lies in the run folder."""

    run: Positional[str]
    """The run folder."""
    seed: int = 0
    """Accepted by every command; a report draws nothing at random."""
    json: bool = False
    """Print the result as JSON on standard output."""


def report(words: list[str]) -> int:
    """Run `diptych report`; returns the exit code."""
    args = _parse(ReportArgs, words)

    path = api.report(args.run)
    _print(args.json, {"report": str(path)}, str(path))
    return 0


@dataclass(frozen=True, kw_only=True)
class RecipesArgs:
    """Lists the recipes: what each is for, and what it was measured to do."""

    seed: int = 0
    """Accepted by every command; a list draws nothing at random."""
    json: bool = False
    """Print the result as JSON on standard output."""


def recipes(words: list[str]) -> int:
    """Run `diptych recipes`; returns the exit code."""
    args = _parse(RecipesArgs, words)

    found = entries()
    text = "\n".join(f"{entry.name}\n    {entry.what_for}\n    Measured: {entry.measured}" for entry in found)
    _print(args.json, {"recipes": [asdict(entry) for entry in found]}, text)
    return 0


def _print(as_json: bool, value: dict[str, Any], text: str) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) if as_json else text)


def _parse(cls: type[T], words: list[str], default: T | None = None) -> T:
    """Parse ``words`` into the dataclass ``cls``; an unknown word is refused with a suggestion."""
    args, rest = _parse_known(cls, words, default)
    if rest:
        known = _flags(cls, default)
        word = rest[0].partition("=")[0]
        hint = suggest(word, known) if word.startswith("-") else "; see --help"
        raise UserError(f"unknown option '{word}'{hint}" if word.startswith("-") else f"unexpected word '{word}'{hint}")
    return args


def _parse_known(cls: type[T], words: list[str], default: T | None = None) -> tuple[T, list[str]]:
    """Parse what ``cls`` knows; a wrong value becomes one line instead of tyro's box."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return _tyro(cls, words, default)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        lines = [line.strip("│╭╮╰╯─ ") for line in said.getvalue().splitlines()[1:]]
        raise UserError(" ".join(lines[: lines.index("")] if "" in lines else lines)) from None


def _tyro(cls: type[T], words: list[str], default: T | None) -> tuple[T, list[str]]:
    options: dict[str, Any] = {} if default is None else {"default": default}
    parsed: tuple[T, list[str]] = tyro.cli(
        cls, args=words, return_unknown_args=True, config=(tyro.conf.OmitArgPrefixes,), prog="diptych", **options
    )
    return parsed


def _flags(cls: type[Any], default: Any) -> list[str]:
    """Every flag that ``cls`` accepts, read from its help."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        _tyro(cls, ["--help"], default)
    return [word.strip(",") for word in said.getvalue().split() if word.startswith("--")]
