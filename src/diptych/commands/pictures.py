"""Commands that look at pictures: ``audit``, ``preview``."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

import diptych
from diptych.api.learning import draw_policies, draw_views
from diptych.auditing.summary import as_text as audit_as_text
from diptych.commands.ordering import help_with_config, order
from diptych.commands.parsing import Folder, Name, Switch, parse, parse_known, tell
from diptych.progress import Terminal


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
    args = parse("audit", AuditArgs, words)
    result = diptych.audit(args.data, args.out, data_dir=args.data_dir, terminal=Terminal())
    tell(args.json, result, audit_as_text(result))
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
        return help_with_config("preview", PreviewArgs, words)
    args, rest = parse_known("preview", PreviewArgs, words)
    draw = draw_policies if args.policies else draw_views
    out = args.out or ("policies.png" if args.policies else "views.png")
    path = draw(order("preview", args, rest, None), out)
    tell(args.json, {"views": str(path)}, str(path))
    return 0
