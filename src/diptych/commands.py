"""One function a command: parse, make one library call, print its result.

Standard output holds results alone (one JSON object with ``--json``); progress goes to standard error.
"""

import contextlib
import io
import itertools
import json
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, TypeVar

import tyro
from rich.console import Console
from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg

from diptych import api
from diptych.auditing.summary import as_text as audit_as_text
from diptych.config import flatten, to_dict
from diptych.data.decoding.crashes import report_crashes
from diptych.distributed import end_in_peace, is_main
from diptych.errors import UserError, check, suggest, typed
from diptych.evaluation.choosing.select_text import as_text as selection_as_text
from diptych.evaluation.config import EvaluateConfig
from diptych.evaluation.table import as_text
from diptych.progress import Terminal
from diptych.recipes.book import entries, skeleton
from diptych.recipes.book import methods as method_entries
from diptych.reports.compare_text import as_text as comparison_as_text
from diptych.reports.screen import view
from diptych.reports.watch import follow, look
from diptych.runs import RunFolder
from diptych.trackers.follow import refuse_missing
from diptych.training.card import saved_config
from diptych.training.config import RunConfig
from diptych.training.order import Order
from diptych.training.plan import dry_run
from diptych.training.plan_text import as_text as plan_as_text

T = TypeVar("T")

Name = Annotated[str | None, arg(metavar="NAME")]
Folder = Annotated[str | None, arg(metavar="FOLDER")]
Switch = Annotated[bool, FlagCreatePairsOff]

ENDED = {"interrupted": 143, "collapsed": 1}
"""Exit codes of runs that are not over; 143 is that of a process which SIGTERM ends, as schedulers expect."""

USAGE = {
    "audit": "diptych audit DATA",
    "pretrain": "diptych pretrain DATA --out RUN",
    "evaluate": "diptych evaluate RUN DATA",
    "preview": "diptych preview DATA --out FILE.png",
    "report": "diptych report RUN",
    "watch": "diptych watch RUN",
    "compare": "diptych compare RUN RUN",
    "select": "diptych select RUN",
    "methods": "diptych methods",
    "recipes": "diptych recipes",
}


@dataclass(frozen=True, kw_only=True)
class AuditArgs:
    """What is there? Counts, formats, broken files, duplicates, classes: before any training."""

    data: Annotated[Positional[str], arg(metavar="DATA")]
    """A folder, archive or list of pictures, hub:NAME, cifar10 or photos."""
    out: Folder = None
    """Where the page, the JSON and the index go; audits/NAME if not given."""
    data_dir: Folder = None
    """Where the archive of a named data set lies."""
    seed: int = 0
    """Accepted by every command; an audit draws nothing at random."""
    json: Switch = False
    """Print the result as JSON on standard output."""


def audit(words: list[str]) -> int:
    """Run `diptych audit`; returns the exit code."""
    args = _parse("audit", AuditArgs, words)
    result = api.audit(args.data, args.out, data_dir=args.data_dir, terminal=Terminal())
    _print(args.json, result, audit_as_text(result))
    return 0


@dataclass(frozen=True, kw_only=True)
class PretrainArgs:
    """Where a run goes and how it is started; everything else is the run's configuration."""

    out: Folder = None
    """The run folder to make."""
    recipe: Name = None
    """The configuration to start from; `diptych recipes` lists them, and without one it is the method's own."""
    method: Name = None
    """How to learn; `diptych methods` lists them, and without one it is `simsiam`."""
    resume: Folder = None
    """Go on with this run instead of starting a new one."""
    overwrite: Switch = False
    """Delete the run that lies at --out first."""
    dry_run: Switch = False
    """Take a few steps, say what the run will need, and write nothing."""
    track: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="SERVICE")] = ()
    """Send the run's numbers to tensorboard, wandb, mlflow or trackio as they come; may be given several times."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    json: Switch = False
    """Print the result as JSON on standard output."""


def pretrain(words: list[str]) -> int:
    """Run `diptych pretrain`; returns the exit code."""
    if {"-h", "--help"} & set(words):
        return _help_with_config("pretrain", PretrainArgs, words)
    args, rest = _parse_known("pretrain", PretrainArgs, words)
    report_crashes()
    refuse_missing(args.track)
    terminal = Terminal()
    if args.resume:
        if args.out or args.recipe or args.method or args.overwrite:
            raise UserError("--resume goes on in its own folder: leave out --out, --recipe, --method and --overwrite")
        if args.dry_run:
            raise UserError("--dry-run plans a run that has not begun: leave out --resume")
        out = args.resume
        config = _parse("pretrain", RunConfig, rest, saved_config(RunFolder.open(out)), PretrainArgs)
        result = api.resume(out, config=config, device=args.device, terminal=terminal, track=args.track)
    else:
        asked = _order("pretrain", args, rest, args.out, args.device)
        if args.dry_run:
            plan = dry_run(asked, args.out, device=args.device, terminal=terminal)
            if is_main():
                _print(args.json, plan, plan_as_text(plan))
            return 0
        if args.out is None:
            raise UserError("say where the run goes: add `--out runs/NAME`")
        out = args.out
        result = api.run_order(
            asked, out, overwrite=args.overwrite, device=args.device, terminal=terminal, track=args.track
        )
    epochs = "1 epoch" if result.epochs == 1 else f"{result.epochs:.3g} epochs"
    loss = "no loss" if result.loss is None else f"loss {result.loss:.3f}"
    summary = (
        f"{out}: {result.status} after {epochs} ({result.steps} steps, {result.seconds:.0f} s, "
        f"{result.images_per_second:.0f} pictures/s), {loss}"
    )
    code = ENDED.get(result.status, 0)
    if result.status == "interrupted":
        end_in_peace()
    if not is_main():
        return code
    if result.status == "interrupted":
        print(f"{summary}; go on with {typed('diptych pretrain --resume', out)}", file=sys.stderr)
        return code
    if result.status == "collapsed":
        print(f"{summary}; no backbone is written. {' '.join(result.warnings)}", file=sys.stderr)
        return code
    then = f"Next: {typed('diptych evaluate', out, 'LABELLED/')}   Report: {out}/report.html"
    _print(args.json, asdict(result), f"{summary}\n{then}")
    return 0


def _order(
    command: str, args: "PretrainArgs | PreviewArgs", words: list[str], out: str | None, device: str = "auto"
) -> Order:
    """Turn what was typed into an order, the way the library does: a recipe, and the settings that were given."""
    name = api.recipe_for(args.method, args.recipe)
    words, auto = _without_auto(words)
    config = _parse(command, RunConfig, words, skeleton(name), type(args))
    if not config.data:
        raise UserError(
            f"say what to learn from: `{USAGE[command]}`, with a folder, archive, list or shards of pictures, "
            "hub:NAME, cifar10 or photos"
        )
    given = {re.sub("^--(no-)?", "", word.partition("=")[0]).replace("-", "_") for word in words if word[:2] == "--"}
    values = {key.rpartition(".")[2]: value for key, value in flatten(to_dict(config)).items()}
    settings = {key: value for key, value in values.items() if key in given}
    return api.order(name, config.data, out, settings | auto, device)


def _without_auto(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """Take `--batch-size auto` out of what was typed: a configuration holds the number that is found for it."""
    left = [word for word in words if word != "--batch-size=auto"]
    for place, pair in enumerate(itertools.pairwise(left)):
        if pair == ("--batch-size", "auto"):
            left = left[:place] + left[place + 2 :]
            break
    return left, {"batch_size": "auto"} if len(left) < len(words) else {}


def _help_with_config(command: str, cls: type[Any], words: list[str]) -> int:
    """Print the help of a command that takes a run's whole configuration beside its own options."""
    args, _ = _parse_known(command, cls, [word for word in words if word not in ("-h", "--help")])
    name = api.recipe_for(args.method, args.recipe)
    with contextlib.suppress(SystemExit):
        _tyro(command, cls, ["--help"], None)
    print(
        f"\nThe configuration of a run. The recipe {name} sets each flag, and you can change it; shown: before that.\n"
    )
    with contextlib.suppress(SystemExit):
        _tyro(command, RunConfig, ["--help"], skeleton(name))
    return 0


@dataclass(frozen=True, kw_only=True)
class EvaluateArgs(EvaluateConfig):
    """Did pretraining help? Compares the backbone with what training began with, random weights and raw pixels."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """A finished run."""
    data: Annotated[Positional[str], arg(metavar="DATA")]
    """Labelled pictures: class subfolders, an archive of them, a CSV `path,label`, hub:NAME, cifar10 or photos."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    json: Switch = False
    """Print the result as JSON on standard output."""


def evaluate(words: list[str]) -> int:
    """Run `diptych evaluate`; returns the exit code."""
    args = _parse("evaluate", EvaluateArgs, words)
    asked = {field.name: getattr(args, field.name) for field in fields(EvaluateConfig)}
    result = api.evaluate(args.run, args.data, device=args.device, terminal=Terminal(), **asked)
    _print(args.json, result, as_text(result))
    return 0


@dataclass(frozen=True, kw_only=True)
class PreviewArgs:
    """Draws some pictures beside their two views; takes every flag of pretrain's configuration too."""

    out: Annotated[str | None, arg(metavar="FILE.png")] = None
    """The PNG file to write; views.png if not given, or policies.png with --policies."""
    recipe: Name = None
    """The recipe whose views are drawn; the method's own without one."""
    method: Name = None
    """The method whose views are drawn; `simsiam` without one."""
    policies: Switch = False
    """Draw the views of every policy, one below the other."""
    json: Switch = False
    """Print the result as JSON on standard output."""


def preview(words: list[str]) -> int:
    """Run `diptych preview`; returns the exit code."""
    if {"-h", "--help"} & set(words):
        return _help_with_config("preview", PreviewArgs, words)
    args, rest = _parse_known("preview", PreviewArgs, words)
    draw = api.draw_policies if args.policies else api.draw_views
    out = args.out or ("policies.png" if args.policies else "views.png")
    path = draw(_order("preview", args, rest, None), out)
    _print(args.json, {"views": str(path)}, str(path))
    return 0


@dataclass(frozen=True, kw_only=True)
class ReportArgs:
    """Rewrites RUN/report.html from what lies in the run folder."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """The run folder."""
    seed: int = 0
    """Accepted by every command; a report draws nothing at random."""
    json: Switch = False
    """Print the result as JSON on standard output."""


def report(words: list[str]) -> int:
    """Run `diptych report`; returns the exit code."""
    args = _parse("report", ReportArgs, words)
    path = api.report(args.run)
    _print(args.json, {"report": str(path)}, str(path))
    return 0


@dataclass(frozen=True, kw_only=True)
class WatchArgs:
    """A live view of runs, going on or over; ends when they are over, or with Ctrl-C."""

    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN")]
    """Run folders; one that is not there yet is waited for."""
    every: float = 2.0
    """Seconds from one look to the next."""
    once: Switch = False
    """Print one view and end, as is done where there is no terminal."""
    seed: int = 0
    """Accepted by every command; a view draws nothing at random."""
    json: Switch = False
    """Print one view as JSON on standard output, and end."""


def watch(words: list[str]) -> int:
    """Run `diptych watch`; returns the exit code."""
    args = _parse("watch", WatchArgs, words)
    check(args, "0.1 seconds or more", lambda value: value >= 0.1, "every")
    if not args.runs:
        raise UserError(f"say which run to watch: type `{USAGE['watch']}`")
    console = Console(highlight=False)
    if args.json:
        _print(True, {"runs": [state.to_dict() for state in look(args.runs)]}, "")
    elif args.once or not console.is_terminal:
        console.print(view(look(args.runs)))
    else:
        with contextlib.suppress(KeyboardInterrupt):
            follow(args.runs, every=args.every, console=console)
    return 0


@dataclass(frozen=True, kw_only=True)
class CompareArgs:
    """Runs side by side: what they are, in which settings they differ, what came of them."""

    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN")]
    """Two run folders or more."""
    out: Folder = None
    """Where compare.png and compare.html go, which show the curves too; nothing is written without it."""
    seed: int = 0
    """Accepted by every command; a comparison draws nothing at random."""
    json: Switch = False
    """Print the result as JSON on standard output."""


def compare(words: list[str]) -> int:
    """Run `diptych compare`; returns the exit code."""
    args = _parse("compare", CompareArgs, words)
    found = api.compare_runs(args.runs, args.out)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    _print(args.json, found.to_dict(), comparison_as_text(found, width))
    return 0


@dataclass(frozen=True, kw_only=True)
class SelectArgs:
    """Which checkpoint, which run? Ranks them by what their features tell on their own: no label is read."""

    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN")]
    """One run folder or more."""
    metric: Name = None
    """What ranks them: rankme, alpha_req, lidar, clid, learnability, dimension, alignment or uniformity."""
    data: Annotated[str | None, arg(metavar="DIR")] = None
    """Pictures to choose by; those that the runs learned from if not given."""
    data_dir: Folder = None
    """Where the archive of a named data set lies."""
    pictures: int = 2000
    """How many are drawn."""
    seed: int = 0
    """Of the draw, the views and the clusters."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    json: Switch = False
    """Print the result as JSON on standard output."""


def select(words: list[str]) -> int:
    """Run `diptych select`; returns the exit code."""
    args = _parse("select", SelectArgs, words)
    found = api.select(
        args.runs,
        metric=args.metric,
        data=args.data,
        data_dir=args.data_dir,
        pictures=args.pictures,
        seed=args.seed,
        device=args.device,
        terminal=Terminal(),
    )
    _print(args.json, found.to_dict(), selection_as_text(found))
    return 0


@dataclass(frozen=True, kw_only=True)
class _ListArgs:
    seed: int = 0
    """Accepted by every command; a list draws nothing at random."""
    json: Switch = False
    """Print the result as JSON on standard output."""


class RecipesArgs(_ListArgs):
    """Lists the recipes: what each is for, and what it was measured to do."""


def recipes(words: list[str]) -> int:
    """Run `diptych recipes`; returns the exit code."""
    args = _parse("recipes", RecipesArgs, words)
    return _print_list("recipes", entries(), args, lambda e: [e.what_for, f"Measured: {e.measured}"])


class MethodsArgs(_ListArgs):
    """Lists the methods: the idea, the paper, what each needs, and what it was measured to do."""


def methods(words: list[str]) -> int:
    """Run `diptych methods`; returns the exit code."""
    args = _parse("methods", MethodsArgs, words)
    return _print_list(
        "methods", method_entries(), args, lambda e: [e.idea, e.paper, f"Needs: {e.needs}", f"Measured: {e.measured}"]
    )


def _print_list(key: str, found: Sequence[Any], args: _ListArgs, told: Callable[[Any], list[str]]) -> int:
    text = "\n".join("\n    ".join([entry.name, *told(entry)]) for entry in found)
    _print(args.json, {key: [asdict(entry) for entry in found]}, text)
    return 0


def _print(as_json: bool, value: dict[str, Any], text: str) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) if as_json else text)


def _parse(
    command: str, cls: type[T], words: list[str], default: T | None = None, beside: type[Any] | None = None
) -> T:
    """Parse ``words`` into the dataclass ``cls``; an unknown word is refused with a suggestion.

    ``beside`` is another dataclass whose flags the command takes too, for the suggestion.
    """
    args, rest = _parse_known(command, cls, words, default)
    if rest:
        word = rest[0].partition("=")[0]
        if not word.startswith("-"):
            raise UserError(f"unexpected word '{word}': type `{USAGE[command]}`")
        known = _flags(command, cls, default) + (_flags(command, beside, None) if beside else [])
        raise UserError(f"unknown option '{word}'{suggest(word, known)}")
    return args


def _parse_known(command: str, cls: type[T], words: list[str], default: T | None = None) -> tuple[T, list[str]]:
    """Parse what ``cls`` knows; a wrong value becomes one line instead of tyro's box."""
    if {"-h", "--help"} & set(words):
        return _tyro(command, cls, words, default)
    # tyro looks at standard output to choose colours and lines: neither stream may be a terminal.
    said, ignored = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(ignored):
            return _tyro(command, cls, words, default)
    except SystemExit:
        pass
    box = said.buffer.getvalue().decode()
    lines = [line.strip("│╭╮╰╯─ ") for line in box.splitlines()[1:]]
    told = " ".join(lines[: lines.index("")] if "" in lines else lines)
    if told.startswith("Missing from"):
        told = f"{' and '.join(re.findall('RUN|DATA', told.partition(':')[2]))} missing"
    elif wrong := re.match(r"Error parsing (--\S+): (no type|invalid literal|could not)", told):
        flag = wrong[1]
        value = words[words.index(flag) + 1] if flag in words[:-1] else ""
        told = f"{flag} cannot be '{value}'"
    raise UserError(f"{told.rstrip('.')}: type `{USAGE[command]}`, or `diptych {command} --help`")


def _tyro(command: str, cls: type[T], words: list[str], default: T | None) -> tuple[T, list[str]]:
    options: dict[str, Any] = {} if default is None else {"default": default}
    parsed: tuple[T, list[str]] = tyro.cli(
        cls,
        args=words,
        return_unknown_args=True,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.AvoidSubcommands),
        prog=f"diptych {command}",
        **options,
    )
    return parsed


def _flags(command: str, cls: type[Any], default: Any) -> list[str]:
    """Every flag that ``cls`` accepts, read from its help."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        _tyro(command, cls, ["--help"], default)
    return re.findall(r"--[a-z][a-z0-9-]*", said.getvalue())
