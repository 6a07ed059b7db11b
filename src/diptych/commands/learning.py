"""The command that learns: ``pretrain``."""

import sys
from dataclasses import asdict, dataclass
from typing import Annotated

from tyro.conf import UseAppendAction, arg

import diptych
from diptych.api.learning import run_order
from diptych.commands.ordering import help_with_config, order
from diptych.commands.parsing import Folder, Name, Switch, parse, parse_known, tell
from diptych.data.decoding.crashes import report_crashes
from diptych.distributed import end_in_peace, is_main
from diptych.errors import UserError, typed
from diptych.progress import Terminal
from diptych.runs import RunFolder
from diptych.trackers.follow import refuse_missing
from diptych.training.card import saved_config
from diptych.training.config import RunConfig
from diptych.training.plan import dry_run
from diptych.training.plan_text import as_text as plan_as_text

ENDED = {"interrupted": 143, "collapsed": 1}
"""Exit codes of runs that are not over; 143 is that of a process which SIGTERM ends, as schedulers expect."""


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
        return help_with_config("pretrain", PretrainArgs, words)
    args, rest = parse_known("pretrain", PretrainArgs, words)
    report_crashes()
    refuse_missing(args.track)
    terminal = Terminal()
    if args.resume:
        if args.out or args.recipe or args.method or args.overwrite:
            raise UserError("--resume goes on in its own folder: leave out --out, --recipe, --method and --overwrite")
        if args.dry_run:
            raise UserError("--dry-run plans a run that has not begun: leave out --resume")
        out = args.resume
        config = parse("pretrain", RunConfig, rest, saved_config(RunFolder.open(out)), PretrainArgs)
        result = diptych.resume(out, config=config, device=args.device, terminal=terminal, track=args.track)
    else:
        asked = order("pretrain", args, rest, args.out, args.device)
        if args.dry_run:
            plan = dry_run(asked, args.out, device=args.device, terminal=terminal)
            if is_main():
                tell(args.json, plan, plan_as_text(plan))
            return 0
        if args.out is None:
            raise UserError("say where the run goes: add `--out runs/NAME`")
        out = args.out
        result = run_order(
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
    tell(args.json, asdict(result), f"{summary}\n{then}")
    return 0
