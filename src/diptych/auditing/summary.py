"""What a person reads on the terminal: a screenful, the most serious first."""

import textwrap
from typing import Any

from diptych.auditing.findings import count_of

WIDTH = 100
SIGNS = {"problem": "✗", "look": "?", "fine": "✓"}
SHOWN = 8
"""Findings told at length; the page has all."""


def as_text(result: dict[str, Any]) -> str:
    """Return at most 25 lines: what is there, the findings, and where the rest is.

    Args:
        result: of ``run.audit``.
    """
    lines = [f"{result['data']}, {headline(result)}", f"  {facts_line(result)}", ""]
    findings = result["findings"]
    wanted = [finding for finding in findings if finding["severity"] != "fine"]
    for finding in wanted[:SHOWN]:
        # Two lines each keep the whole on a screen; the page has the advice in full.
        lines += textwrap.wrap(
            f"{SIGNS[finding['severity']]} {finding['sentence']}",
            WIDTH,
            subsequent_indent="  ",
            max_lines=2,
            placeholder=" …",
        )
    if len(wanted) > SHOWN:
        lines.append(f"  … and {count_of(len(wanted) - SHOWN, 'finding')} more on the page")
    fine = [finding["sentence"].rstrip(".") for finding in findings if finding["severity"] == "fine"]
    if fine:
        told = textwrap.wrap(
            f"{SIGNS['fine']} {'; '.join(fine)}.", WIDTH, subsequent_indent="  ", max_lines=3, placeholder=" …"
        )
        lines += told
    return "\n".join([*lines, "", f"With pictures, and what to do: {result['page']}"])


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
    return f"{' · '.join([*told, size_of(result['bytes'])])}"


def size_of(count: int) -> str:
    """Write bytes for people."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 1000 * size else f"{count / size:,.0f} {unit}"
    return f"{count} bytes"
