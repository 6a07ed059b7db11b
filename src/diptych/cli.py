"""The command line's front door: help at once, everything else from ``commands``.

Results go to standard output, everything else to standard error. A user's mistake is one line and exit code 2.
"""

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module, metadata

from diptych.errors import UserError, printable, suggest

COMMANDS = {
    "audit": "pictures",
    "preview": "pictures",
    "pretrain": "learning",
    "evaluate": "judging",
    "report": "watching",
    "watch": "watching",
    "compare": "judging",
    "select": "judging",
    "embed": "vectors",
    "search": "vectors",
    "duplicates": "vectors",
    "outliers": "vectors",
    "select-labels": "vectors",
    "explore": "handing_on",
    "export": "handing_on",
    "push": "handing_on",
    "methods": "lists",
    "recipes": "lists",
}
"""Each command, and the file of ``commands`` that holds it."""

USAGE = """\
diptych: learn image representations from unlabeled pictures, and prove whether it helped.

  diptych audit DATA                    what is there? broken files, duplicates, formats, sizes, classes
  diptych preview DATA --out FILE.png   look at the views before training
  diptych pretrain DATA --out RUN       learn from a folder, archive, list or shards of pictures, cifar10 or photos
  diptych evaluate RUN LABELLED         did it help? against the same network untrained, and raw pixels
  diptych report RUN                    rewrite RUN/report.html
  diptych watch RUN                     a live view of a run, going on or over
  diptych compare RUN RUN               runs side by side: what differs, what came of it; --out draws their curves
  diptych select RUN [RUN ...]          choose a checkpoint, or among runs, without labels
  diptych embed RUN DATA --out FILE     any number of pictures as vectors, in Parquet or .npy
  diptych search VECTORS QUERY          the pictures most like one: a file, or one of the set by its name
  diptych duplicates VECTORS            groups of near-duplicates, and which to keep
  diptych outliers VECTORS              what is odd
  diptych select-labels VECTORS         what to label first: --budget 200
  diptych explore RUN DATA              the map of your pictures, in the browser
  diptych export RUN --to FORM          hand the backbone on: timm, safetensors, onnx or torch-export
  diptych push RUN USER/NAME            to the Hugging Face hub, with a model card
  diptych methods                       ways to learn: the idea, what each needs, what it was measured to do
  diptych recipes                       the recipes: what each is for, what it was measured to do

Every command takes --json (the result on standard output, nothing else there), --seed and --help.
Start with: diptych pretrain photos --out runs/demo
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0 done, 1 a run that was stopped because it had collapsed, 2 a user's mistake, 130 interrupted,
        143 a run that was interrupted and can be resumed.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(words)
        sys.stdout.flush()  # what cannot be written is told here, not when the interpreter ends
        return code
    except UserError as error:
        print(f"diptych: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("diptych: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if words[0] == "--version":
        print(metadata.version("diptych"))
        return 0
    if words[0] not in COMMANDS:
        raise UserError(f"unknown command '{words[0]}'{suggest(words[0], COMMANDS)}")
    try:
        code: int = command(words[0])(words[1:])
    except SystemExit as stop:  # tyro has printed the help
        return int(stop.code or 0)
    return code


def command(name: str) -> Callable[[list[str]], int]:
    """Return the function of a command, which loads torch."""
    found: Callable[[list[str]], int] = getattr(
        import_module(f"diptych.commands.{COMMANDS[name]}"), name.replace("-", "_")
    )
    return found
