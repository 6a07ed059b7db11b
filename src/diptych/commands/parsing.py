"""What was typed becomes a dataclass, or one line about what was mistyped; results are printed here.

Standard output holds results alone (one JSON object with ``--json``); progress goes to standard error.
"""

import contextlib
import io
import json
import re
from typing import Annotated, Any, TypeVar

import tyro
from tyro.conf import FlagCreatePairsOff, arg

from diptych.errors import UserError, suggest

T = TypeVar("T")

Name = Annotated[str | None, arg(metavar="NAME")]
Folder = Annotated[str | None, arg(metavar="FOLDER")]
Switch = Annotated[bool, FlagCreatePairsOff]

USAGE = {
    "audit": "diptych audit DATA",
    "pretrain": "diptych pretrain DATA --out RUN",
    "evaluate": "diptych evaluate RUN DATA",
    "preview": "diptych preview DATA --out FILE.png",
    "report": "diptych report RUN",
    "watch": "diptych watch RUN",
    "compare": "diptych compare RUN RUN",
    "select": "diptych select RUN",
    "embed": "diptych embed RUN DATA --out FILE.parquet",
    "search": "diptych search VECTORS QUERY",
    "duplicates": "diptych duplicates VECTORS",
    "outliers": "diptych outliers VECTORS",
    "select-labels": "diptych select-labels VECTORS --budget 200",
    "explore": "diptych explore RUN DATA",
    "export": "diptych export RUN --to onnx --out FILE",
    "push": "diptych push RUN USER/NAME",
    "methods": "diptych methods",
    "recipes": "diptych recipes",
}


def tell(as_json: bool, value: dict[str, Any], text: str) -> None:
    """Print a result: as one JSON object, or as text for people."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) if as_json else text)


def parse(command: str, cls: type[T], words: list[str], default: T | None = None, beside: type[Any] | None = None) -> T:
    """Parse ``words`` into the dataclass ``cls``; an unknown word is refused with a suggestion.

    ``beside`` is another dataclass whose flags the command takes too, for the suggestion.
    """
    args, rest = parse_known(command, cls, words, default)
    if rest:
        word = rest[0].partition("=")[0]
        if not word.startswith("-"):
            raise UserError(f"unexpected word '{word}': type `{USAGE[command]}`")
        known = flags(command, cls, default) + (flags(command, beside, None) if beside else [])
        raise UserError(f"unknown option '{word}'{suggest(word, known)}")
    return args


def parse_known(command: str, cls: type[T], words: list[str], default: T | None = None) -> tuple[T, list[str]]:
    """Parse what ``cls`` knows; a wrong value becomes one line instead of tyro's box."""
    if {"-h", "--help"} & set(words):
        return tyro_cli(command, cls, words, default)
    # tyro looks at standard output to choose colours and lines: neither stream may be a terminal.
    said, ignored = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(ignored):
            return tyro_cli(command, cls, words, default)
    except SystemExit:
        pass
    box = said.buffer.getvalue().decode()
    lines = [line.strip("│╭╮╰╯─ ") for line in box.splitlines()[1:]]
    told = " ".join(lines[: lines.index("")] if "" in lines else lines)
    if told.startswith("Missing from"):
        told = f"{' and '.join(re.findall('RUN|DATA|VECTORS|QUERY|REPO', told.partition(':')[2]))} missing"
    elif wrong := re.match(r"Error parsing (?:(-\w)/)?(--\S+): (no type|invalid literal|could not)", told):
        flag = wrong[1] if wrong[1] in words else wrong[2]
        value = words[words.index(flag) + 1] if flag in words[:-1] else ""
        told = f"{flag} cannot be '{value}'"
    raise UserError(f"{told.rstrip('.')}: type `{USAGE[command]}`, or `diptych {command} --help`")


def tyro_cli(command: str, cls: type[T], words: list[str], default: T | None) -> tuple[T, list[str]]:
    """Let tyro parse: what it knows, and the words that it does not. Raises SystemExit, with help or a box printed."""
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


def flags(command: str, cls: type[Any], default: Any) -> list[str]:
    """Every flag that ``cls`` accepts, read from its help."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        tyro_cli(command, cls, ["--help"], default)
    return re.findall(r"--[a-z][a-z0-9-]*", said.getvalue())
