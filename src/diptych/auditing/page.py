"""The audit as a page: one HTML document that needs no network and runs no script.

File and class names are hostile input; each goes through ``markup``.
"""

import base64
import textwrap
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from string import Template
from typing import Any

from diptych.auditing.findings import count_of
from diptych.auditing.summary import facts_line, headline
from diptych.errors import byte_size
from diptych.markup import date, facts, name, number, section, style, text

BADGES = {"problem": "problem", "look": "look at", "fine": "fine"}
CLASSES = 40
"""Classes drawn; the rest is counted."""
LONG = 4
"""Channels whose statistics are shown; the rest unfolds."""
REASON = 60
"""Characters of a reason below a picture; all of it is in the title."""


def render(result: dict[str, Any], images: dict[str, bytes]) -> str:
    """Return the whole page.

    Args:
        result: of ``findings.collect``.
        images: a small WebP for the digest of each picture that is shown.
    """
    template = Template(Path(__file__).with_name("audit.html").read_text(encoding="utf-8"))
    return template.substitute(
        style=style(),
        data=text(result["data"]),
        facts=text(facts_line(result)),
        sentence=text(f"{headline(result)}."),
        note=text(result["note"]),
        body="\n".join(
            [
                _findings(result, images),
                section("contents", "What is there", "", _numbers(result) + _kinds(result)),
                section("sizes", "Sizes", _sizes_lede(result), _sizes(result)),
                section("classes", "Classes", "", _classes(result)),
            ]
        ),
        made=text(date(datetime.now(UTC).isoformat())),
        version=text(metadata.version("diptych")),
    )


def _findings(result: dict[str, Any], images: dict[str, bytes]) -> str:
    findings = result["findings"]
    wanted = [finding for finding in findings if finding["severity"] != "fine"]
    body = "".join(_finding(finding, images) for finding in wanted)
    fine = "".join(f"<li>{text(f['sentence'])}</li>" for f in findings if f["severity"] == "fine")
    return section("findings", "Findings", "The most serious first.", body) + section(
        "fine", "Looked for, and fine", "", f'<ul class="fine">{fine}</ul>' if fine else ""
    )


def _finding(finding: dict[str, Any], images: dict[str, bytes]) -> str:
    severity = finding["severity"]
    examples = "".join(_example(example, images, finding["key"]) for example in finding["examples"])
    return (
        f'<article class="finding {severity}" id="{text(finding["key"])}">'
        f'<h3><span class="badge {severity}">{BADGES[severity]}</span> {text(finding["sentence"])}</h3>'
        f'<p class="advice">{text(finding["advice"])}</p>'
        + (f'<div class="examples">{examples}</div>' if examples else "")
        + "</article>"
    )


def _example(pictures: list[dict[str, Any]], images: dict[str, bytes], key: str) -> str:
    shown = "".join(_picture(picture, images, key) for picture in pictures)
    return f'<div class="example{" set" if len(pictures) > 1 else ""}">{shown}</div>'


def _picture(picture: dict[str, Any], images: dict[str, bytes], key: str) -> str:
    image = images.get(picture["digest"])
    if image is None:
        inner = '<div class="broken" aria-hidden="true">✕</div>'
    else:
        encoded = base64.b64encode(image).decode("ascii")
        inner = f'<img src="data:image/webp;base64,{encoded}" alt="{text(picture["name"])}">'
    folder, _, file = picture["name"].rpartition("/")
    told = [f'<span class="file">{name(file)}</span>']
    told += [f'<span class="file muted">{name(folder)}</span>'] if folder else []
    told += [f'<span class="muted">{detail}</span>'] if (detail := _detail(picture, key)) else []
    title = ": ".join(filter(None, (picture["name"], picture.get("reason"))))
    return f'<figure title="{text(title)}">{inner}<figcaption>{"".join(told)}</figcaption></figure>'


def _detail(picture: dict[str, Any], key: str) -> str:
    """Say about an example what the finding is about."""
    size = f"{picture['width']:,} × {picture['height']:,}"
    if picture.get("reason"):
        return text(textwrap.shorten(picture["reason"], REASON, placeholder=" …"))
    if key in ("overlap", "near-overlap"):
        return text(f"{picture['part']}, {size}")
    if key in ("conflicts", "near-conflicts"):
        return name(picture["label"])
    if key in ("misnamed", "converted"):
        return text(f"{picture['format']}, {picture['mode']}")
    return text(size)


def _numbers(result: dict[str, Any]) -> str:
    pairs = [("Data", name(result["data"]))]
    for part in result["parts"]:
        told = f"{count_of(part['pictures'], 'picture')}, {byte_size(part['bytes'])}"
        if part["readable"] < part["pictures"]:
            told += f"; {part['pictures'] - part['readable']:,} cannot be read"
        pairs.append((part["part"].capitalize() if len(result["parts"]) > 1 else "Pictures", text(told)))
    told = ", ".join(f"{one['pictures']:,} {one['format']} {one['mode']}".rstrip() for one in result["formats"])
    return facts([*pairs, ("Formats", text(told or "–")), ("Found", text(result["note"]))])


def _kinds(result: dict[str, Any]) -> str:
    if not result["kinds"]:
        return ""
    rows = []
    for kind in result["kinds"]:
        rows += [_channel(kind, channel) for channel in range(min(kind["channels"], LONG))]
        if kind["channels"] > LONG:
            folded = "".join(_channel(kind, channel) for channel in range(LONG, kind["channels"]))
            rows.append(
                f'<tr><td colspan="7"><details><summary>{count_of(kind["channels"] - LONG, "channel")} more</summary>'
                f'<table class="values"><tbody>{folded}</tbody></table></details></td></tr>'
            )
    head = "".join(f"<th>{title}</th>" for title in ("pictures", "channel", "mean", "std", "lowest", "highest"))
    return (
        '<h3>Values <span class="muted">each picture counts the same; large JPEGs reduced by their decoder</span></h3>'
        f'<div class="scroll"><table class="values"><thead><tr><th class="name">kind</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _channel(kind: dict[str, Any], channel: int) -> str:
    first = f"{kind['channels']} × {kind['depth']}" if channel == 0 else ""
    count = f"{kind['pictures']:,}" if channel == 0 else ""
    values = [_value(kind[key][channel]) for key in ("mean", "std", "low", "high")]
    cells = "".join(f"<td>{value}</td>" for value in (count, channel + 1, *values))
    return f'<tr{" class=first" if channel == 0 else ""}><th class="name">{text(first)}</th>{cells}</tr>'


def _value(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= value < 1e7 else number(value)


def _sizes_lede(result: dict[str, Any]) -> str:
    sizes = result["sizes"]
    if not sizes["common"]:
        return ""
    if sizes["distinct"] == 1:
        one = sizes["common"][0]
        return f"All pictures are {one['width']:,} × {one['height']:,} pixels."
    told = " and ".join(
        f"{sizes[side]['least']:,} to {sizes[side]['most']:,} pixels {word} (median {sizes[side]['median']:,})"
        for side, word in (("width", "wide"), ("height", "high"))
    )
    return f"{count_of(sizes['distinct'], 'size')}: {told}."


def _sizes(result: dict[str, Any]) -> str:
    sizes = result["sizes"]
    if sizes["distinct"] < 2:
        return ""
    bins = [(f"{one['from']:,}–{one['to']:,}" if one["to"] > 1 else "1", one["pictures"]) for one in sizes["histogram"]]
    common = [(f"{one['width']:,} × {one['height']:,}", one["pictures"]) for one in sizes["common"]]
    drawn = f"<div><h4>Shorter side, pixels</h4>{_bars(bins)}</div>"
    if common[0][1] > 1:  # else every picture has a size of its own
        drawn += f"<div><h4>Most frequent</h4>{_bars(common)}</div>"
    return f'<div class="pair">{drawn}</div>'


def _classes(result: dict[str, Any]) -> str:
    classes = result["classes"]
    if not classes:
        return ""
    body = _bars([(one["name"], one["pictures"]) for one in classes[:CLASSES]])
    more = len(classes) - CLASSES
    return body + (f'<p class="muted">{count_of(more, "smaller class")} in audit.json</p>' if more > 0 else "")


def _bars(rows: list[tuple[str, int]]) -> str:
    """Draw counts as bars of a common scale."""
    most = max(count for _, count in rows)
    drawn = "".join(
        f'<tr><th class="name">{name(label)}</th><td>{count:,}</td><td class="bar">'
        + (f'<span style="width:{100 * count / most:.1f}%"></span>' if count else "")
        + "</td></tr>"
        for label, count in rows
    )
    return f'<table class="list"><tbody>{drawn}</tbody></table>'
