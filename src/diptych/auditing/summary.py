"""What a person reads on the terminal: a screenful, the most serious first."""

import re
import textwrap
from typing import Any

from diptych.auditing.findings import count_of
from diptych.errors import byte_size, printable

WIDTH = 100
LINES = 25
"""In all."""
SIGNS = {"problem": "✗", "look": "?", "fine": "✓"}
FINE = 3
"""Lines of what was looked for and is not there, at most."""


def as_text(result: dict[str, Any]) -> str:
    """Return at most 25 lines: what is there, the findings, and where the rest is.

    A problem comes with the first sentence of its advice. Where there are too many findings, the last are counted.

    Args:
        result: of ``run.audit``.
    """
    opening = [f"{result['data']}, {headline(result)}", f"  {facts_line(result)}", ""]
    ending = ["", f"With pictures, and what to do: {result['page']}"]
    findings = result["findings"]
    fine = _fine([finding["sentence"].rstrip(".") for finding in findings if finding["severity"] == "fine"])
    wanted = [_told(finding) for finding in findings if finding["severity"] != "fine"]
    room = LINES - len(opening) - len(ending) - len(fine)
    lines: list[str] = []
    for place, told in enumerate(wanted):
        last = place == len(wanted) - 1
        if len(lines) + len(told) + (not last) > room:
            lines.append(f"  … and {count_of(len(wanted) - place, 'finding')} more on the page")
            break
        lines += told
    return "\n".join(map(printable, [*opening, *lines, *fine, *ending]))  # names are hostile: a terminal obeys them


def _told(finding: dict[str, Any]) -> list[str]:
    """Return a finding in at most two lines and, where it is a problem, what to do in one more."""
    severity = finding["severity"]
    lines = _wrapped(f"{SIGNS[severity]} {finding['sentence']}", 2)
    if severity == "problem" and finding["advice"]:
        first = re.split(r"(?<=\.) (?=[A-Z])", finding["advice"])[0]
        lines += _wrapped(f"  → {first}", 1)
    return lines


def _fine(sentences: list[str]) -> list[str]:
    """Return as many of the sentences, whole, as there is room for."""
    kept: list[str] = []
    for sentence in sentences:
        if len(_wrapped(f"{SIGNS['fine']} {'; '.join([*kept, sentence])}.", FINE + 1)) <= FINE:
            kept.append(sentence)
    return _wrapped(f"{SIGNS['fine']} {'; '.join(kept)}.", FINE) if kept else []


def _wrapped(line: str, most: int) -> list[str]:
    return textwrap.wrap(line, WIDTH, subsequent_indent="  ", max_lines=most, placeholder=" …")


def headline(result: dict[str, Any]) -> str:
    """Return how many pictures there are and how many findings."""
    problems, looks = (
        sum(finding["severity"] == severity for finding in result["findings"]) for severity in ("problem", "look")
    )
    told = [count_of(problems, "problem")] if problems else []
    told += [f"{count_of(looks, 'thing')} to look at"] if looks else []
    return f"{count_of(result['pictures'], 'picture')}: {' and '.join(told) or 'nothing to mend'}"


def facts_line(result: dict[str, Any]) -> str:
    """Return formats, sizes and kinds in one line."""
    named: dict[str, int] = {}
    for one in result["formats"]:
        named[one["format"]] = named.get(one["format"], 0) + one["pictures"]
    told = [", ".join(f"{count:,} {name}" for name, count in list(named.items())[:4])] if named else []
    sizes = result["sizes"]
    if sizes["common"]:
        one = sizes["common"][0]
        same = f"all {one['width']} × {one['height']} px"
        spread = "{width[least]}–{width[most]} × {height[least]}–{height[most]} px".format(**sizes)
        told.append(same if sizes["distinct"] == 1 else spread)
    if result["kinds"]:
        kind = result["kinds"][0]
        told.append(f"{count_of(kind['channels'], 'channel')} of {kind['depth']}")
    return f"{' · '.join([*told, byte_size(result['bytes'])])}"
