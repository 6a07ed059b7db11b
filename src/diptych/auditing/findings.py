"""What is worth a person's attention in a data set: how serious it is, how often, where, and what to do.

A finding is a dict: ``key``, ``severity`` (``problem``: results would be wrong, or a run would stop; ``look``: decide
for yourself; ``fine``: was looked for and is not there), ``sentence``, ``count`` (pictures), ``advice`` (empty where
nothing is to be done) and ``examples``, lists of pictures that belong together. The first sentence of a problem's
advice fits on a line: the terminal shows that one alone.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from diptych.auditing import facts
from diptych.auditing.duplicates import Duplicates, digest_of, labels_of, members
from diptych.auditing.index import PARTS, Index, shown
from diptych.auditing.kinds import Kinds, of
from diptych.data.decoding.pixels import PixelFormat
from diptych.data.quarantine import enough
from diptych.data.sources.open import Splits
from diptych.markup import SPACE, percent
from diptych.runs import SCHEMA_VERSION

EXAMPLES = 12
"""Groups of pictures shown for one finding."""
TOGETHER = 4
"""Pictures shown of one group."""
MAX_BAD = 0.01
"""Share of pictures that a run does without before it stops."""
BALANCE = 10
"""Times as many pictures in the largest class as in the smallest from which accuracy misleads."""
TINY = 16
"""Pixels of the shorter side below which little can be seen."""
SMALLER = 8
"""Times smaller than the median below which a picture is likely a thumbnail or an icon."""
HUGE = 50_000_000
"""Pixels from which decoding one picture takes seconds, or a large part of the memory."""
ASPECT = 3
"""Longer side over shorter from which the centred square that is learned from leaves out most of the picture."""
SEVERITIES = ("problem", "look", "fine")

Finding = dict[str, Any]


def collect(index: Index, copies: Duplicates, kinds: Kinds, data: str, splits: Splits) -> dict[str, Any]:
    """Return the whole result of an audit, as it stands in ``audit.json``."""
    classes = facts.classes(index)
    readable = [bool(part) for part in kinds.parts]
    comparable = (_overlap(index), _near_overlap(index, copies)) if all(readable) else ()
    content = (
        _copies(index),
        _near(index, copies),
        _constant(index),
        *_sizes(index),
        _misnamed(index),
        _converted(index),
        _rotated(index),
    )
    found = [
        finding
        for finding in (
            _bad(index, kinds),
            *comparable,
            _conflicts(index),
            _near_conflicts(index, copies),
            *_classes(classes, splits),
            _kinds(index, kinds, splits),
            _test_kinds(index, kinds),
            *(content if any(readable) else ()),  # nothing is wrong with pictures that nobody has seen
        )
        if finding
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "data": shown(data),
        "note": shown(splits.note),
        **facts.counts(index),
        "findings": sorted(found, key=lambda finding: SEVERITIES.index(finding["severity"])),
        "formats": facts.formats(index),
        "kinds": facts.kinds(index),
        "sizes": facts.sizes(index),
        "classes": classes,
    }


def _finding(
    key: str,
    severity: str,
    sentence: str,
    count: int = 0,
    advice: str = "",
    examples: list[list[dict[str, Any]]] | None = None,
) -> Finding:
    return {
        "key": key,
        "severity": severity,
        "sentence": sentence,
        "count": count,
        "advice": advice,
        "examples": examples or [],
    }


def count_of(number: int, what: str) -> str:
    """Write ``1 picture``, ``2,000 pictures``, ``3 classes``."""
    return f"{number:,} {what}" + ("" if number == 1 else "es" if what.endswith("s") else "s")


def share_of(count: int, total: int) -> str:
    """Write a part of a whole: ``12.5 %``, and never 0 % of something."""
    return percent(count / total) if 2000 * count >= total else f"less than 0.1{SPACE}%"


def _single(index: Index, condition: str, values: Sequence[Any] = ()) -> list[list[dict[str, Any]]]:
    """Return the first pictures that meet a condition, each an example of its own."""
    query = (
        "SELECT part, name, label, width, height, digest, reason, format, mode FROM pictures WHERE "
        f"{condition} ORDER BY part, name LIMIT {EXAMPLES}"
    )
    names = ("part", "name", "label", "width", "height", "digest", "reason", "format", "mode")
    rows = [dict(zip(names, row, strict=True)) for row in index.rows(query, values)]
    return [[row | {"part": PARTS[row["part"]], "name": shown(row["name"])}] for row in rows]


def _bad(index: Index, kinds: Kinds) -> Finding:
    total, bad = index.rows("SELECT count(*), sum(reason IS NOT NULL) FROM pictures")[0]
    if not bad:
        return _finding("bad", "fine", f"All {count_of(total, 'picture')} can be read to the last pixel.")
    reasons: dict[str, int] = {}
    for reason, count in index.stream("SELECT reason, count(*) FROM pictures WHERE reason IS NOT NULL GROUP BY reason"):
        short = re.sub(r"\d[\d,.]*", "…", re.split(r" \(|: |; ", str(reason))[0])
        reasons[short] = reasons.get(short, 0) + count
    told = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:6]
    sentence = f"{count_of(bad, 'picture')} ({share_of(bad, total)}) cannot be read: "
    if bad == total:
        sentence = "The only picture cannot be read: " if bad == 1 else f"None of {bad:,} pictures can be read: "
    sentence += "; ".join(f"{count:,} × {reason}" for reason, count in told)
    advice = _without(index, kinds)
    return _finding("bad", "problem", f"{sentence}.", bad, advice, _single(index, "reason IS NOT NULL"))


def _without(index: Index, kinds: Kinds) -> str:
    """Say what a run does about the training pictures that it has to leave out, and what to type."""
    total, unreadable = index.rows("SELECT count(*), sum(reason IS NOT NULL) FROM pictures WHERE part = 0")[0]
    if kinds.usual is None:
        return "A run has nothing to learn from: replace the files that bad.jsonl lists, or give other pictures."
    refused = kinds.left_out(0)
    lost = unreadable + refused
    if not lost:
        return "All training pictures can be read, so a run goes on. An evaluation leaves out what bad.jsonl lists."
    of_which = f" ({unreadable:,} unreadable, {refused:,} of another kind)" if unreadable and refused else ""
    them = f"{lost:,} of {count_of(total, 'training picture')}{of_which}"
    if lost > MAX_BAD * total:
        return (
            f"A run stops unless it is given --max-bad {enough(lost, total):g}. It has to leave out {them}: replace or "
            "delete what bad.jsonl lists, or give it that flag."
        )
    return f"A run leaves out {them} and goes on. bad.jsonl lists them all, to be replaced or deleted."


_BOTH = "SELECT digest FROM good GROUP BY digest HAVING max(part) > min(part) ORDER BY digest"


def _overlap(index: Index) -> Finding:
    count = index.number(f"SELECT count(*) FROM good WHERE part = 1 AND digest IN ({_BOTH})")
    if not count:
        return _finding("overlap", "fine", "No picture stands in both train and test.")
    examples = [_first_of_each(members(index, digest)) for (digest,) in index.rows(f"{_BOTH} LIMIT {EXAMPLES}")]
    return _finding(
        "overlap",
        "problem",
        f"{count_of(count, 'test picture')} {_stand(count)} in train too, byte for byte.",
        count,
        "Delete them from one of the two; duplicates.jsonl lists them. A score on them measures memory.",
        examples,
    )


def _stand(count: int) -> str:
    return "stands" if count == 1 else "stand"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def _keep(count: int) -> str:
    return "keeps its" if count == 1 else "keep their"


def _look(count: int) -> str:
    return "looks" if count == 1 else "look"


def _first_of_each(pictures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep one picture of each part."""
    return list({one["part"]: one for one in reversed(pictures)}.values())[::-1]


_GROUPED = "Give a CSV file with the columns path, label and `group` instead: no group is ever divided."
"""What to do about pictures that look alike."""


def _near_overlap(index: Index, copies: Duplicates) -> Finding:
    found = copies.overlap()
    if not found:
        return _finding("near-overlap", "fine", "No test picture looks like a training picture.")
    count = int(copies.counts[[test for test, _ in found], 1].sum())
    examples = [
        [members(index, digest_of(index, copies, place), limit)[-1] for place, limit in ((train, 1), (test, 1))]
        for test, train in _spread(found)
    ]
    total = index.number("SELECT count(*) FROM good WHERE part = 1")
    return _finding(
        "near-overlap",
        "problem" if count > MAX_BAD * total else "look",
        f"{count_of(count, 'test picture')} ({share_of(count, total)}) {_look(count)} like a training "
        "picture: a copy resized, recompressed or recoloured, or another shot of one scene.",
        count,
        f"{_GROUPED} A score on them is better than on new pictures. Or delete them from one of the two: "
        "duplicates.jsonl lists them.",
        examples,
    )


def _spread(items: list[Any]) -> list[Any]:
    """Return ``EXAMPLES`` of the items, from the whole list."""
    places = np.unique(np.linspace(0, len(items) - 1, min(EXAMPLES, len(items))).round().astype(int))
    return [items[place] for place in places.tolist()]


def _conflicts(index: Index) -> Finding | None:
    grouped = "SELECT digest FROM good GROUP BY digest HAVING count(DISTINCT label) > 1 ORDER BY digest"
    count = index.number(f"SELECT count(*) FROM good WHERE digest IN ({grouped})")
    if not count:
        return None
    return _finding(
        "conflicts",
        "problem",
        f"{count_of(count, 'picture')} are the same as one of another class.",
        count,
        "One of the labels is wrong, or both are right: duplicates.jsonl lists them with labels.",
        [_first_labels(members(index, digest)) for (digest,) in index.rows(f"{grouped} LIMIT {EXAMPLES}")],
    )


def _first_labels(pictures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep one picture of each class."""
    return list({one["label"]: one for one in reversed(pictures)}.values())[::-1][:TOGETHER]


def _near_conflicts(index: Index, copies: Duplicates) -> Finding | None:
    labels = labels_of(index, copies)
    pairs = [pair for pair in copies.pairs.tolist() if all(map(labels.get, pair)) and len(_both(labels, pair)) > 1]
    if not pairs:
        return None
    count = int(copies.counts[sorted({place for pair in pairs for place in pair})].sum())
    seen: set[int] = set()
    apart: list[list[int]] = []
    for pair in pairs:
        if seen.isdisjoint(pair):
            seen.update(pair)
            apart.append(pair)
    return _finding(
        "near-conflicts",
        "look",
        f"{count_of(count, 'picture')} {_look(count)} like one of another class.",
        count,
        "Look whether one of the labels is wrong; duplicates.jsonl lists the groups with their labels.",
        [_first_labels(_differing(index, copies, labels, pair)) for pair in _spread(apart)],
    )


def _both(labels: dict[int, set[str]], pair: list[int]) -> set[str]:
    return labels[pair[0]] | labels[pair[1]]


def _differing(index: Index, copies: Duplicates, labels: dict[int, set[str]], pair: list[int]) -> list[dict[str, Any]]:
    """Return a picture of each of two contents, of different classes."""
    one, other = next((a, b) for a in sorted(labels[pair[0]]) for b in sorted(labels[pair[1]]) if a != b)
    return [
        next(picture for picture in members(index, digest_of(index, copies, place)) if picture["label"] == label)
        for place, label in zip(pair, (one, other), strict=True)
    ]


def _classes(classes: list[dict[str, Any]], splits: Splits) -> Iterator[Finding]:
    if not classes:
        yield _finding("classes", "fine", "There are no labels: enough to pretrain, but an evaluation needs some.")
        return
    few = [one["name"] for one in classes if one["pictures"] < 2]
    if few:
        yield _finding(
            "few",
            "problem",
            f"{count_of(len(few), 'class')} {'holds' if len(few) == 1 else 'hold'} a single picture: {_list(few)}.",
            len(few),
            "None is left to test on: add pictures, or move the class folder elsewhere.",
        )
    if splits.test is not None:
        for here, there in (("train", "test"), ("test", "train")):
            lacking = [one["name"] for one in classes if one[here] and not one[there]]
            if lacking:
                yield _finding(
                    f"only-{here}",
                    "problem",
                    f"{count_of(len(lacking), 'class')} {_stand(len(lacking))} in {here} but not in {there}: "
                    f"{_list(lacking)}.",
                    len(lacking),
                    "Check the names of the class folders in both parts.",
                )
    largest, smallest = classes[0], classes[-1]
    ratio = largest["pictures"] / smallest["pictures"]
    told = (
        f"{count_of(len(classes), 'class')}; the largest, {largest['name']}, has {largest['pictures']:,} pictures, the "
        f"smallest, {smallest['name']}, {smallest['pictures']:,}"
    )
    if ratio >= BALANCE:
        advice = "Read the balanced accuracy and the recall of each class, not the accuracy alone."
        yield _finding("classes", "look", f"{told}: {ratio:.0f} times as many.", len(classes), advice)
    elif ratio == 1:
        each = f"{largest['pictures']:,} pictures each"
        yield _finding("classes", "fine", f"{count_of(len(classes), 'class')} of {each}.", len(classes))
    else:
        yield _finding("classes", "fine", f"{told}.", len(classes))


def _list(names: list[str]) -> str:
    more = len(names) - 5
    return ", ".join(names[:5]) + (f" and {more:,} more" if more > 0 else "")


def _kinds(index: Index, kinds: Kinds, splits: Splits) -> Finding | None:
    if kinds.usual is None:
        return None
    usual, (most, *_), others = kinds.usual, kinds.parts[0].values(), list(kinds.parts[0])[1:]
    if not others:
        return _finding("kinds", "fine", f"All {'training ' if splits.test else ''}pictures have {usual}.", most)
    count = kinds.parts[0].total() - most
    command = f"--channels {usual.channels} --depth {usual.depth}"
    advice = f"A run that takes {command} learns from {most:,} of them"
    refused = {kind: n for kind, n in kinds.parts[0].items() if kind in kinds.refused}
    changed = {kind: kinds.parts[0][kind] for kind in others if kind not in refused}
    if refused:
        advice += f" and leaves out {sum(refused.values()):,}."
        if changed:
            advice += f" It converts {_listed(changed)}."
        advice += f" It cannot convert {_listed(refused)}: they need a run of their own. {_without(index, kinds)}"
    else:
        advice += f", and converts {_listed(changed)}."
    condition, values = of(others)
    return _finding(
        "kinds",
        "problem" if refused else "look",
        f"The pictures are of {len(others) + 1} kinds: most have {usual}, {count:,} {_have(count)} not.",
        count,
        advice,
        _single(index, f"reason IS NULL AND part = 0 AND {condition}", values),
    )


def _test_kinds(index: Index, kinds: Kinds) -> Finding | None:
    """Tell of test pictures unlike any training picture, and of those that an evaluation leaves out."""
    odd = {k: n for k, n in kinds.parts[1].items() if k in kinds.refused or k not in kinds.parts[0]}
    if kinds.usual is None or not odd:
        return None
    refused, count = kinds.left_out(1), sum(odd.values())
    condition, values = of(list(odd))
    return _finding(
        "test-kinds",
        "problem" if refused else "look",
        f"{count_of(count, 'test picture')} {_are(count)} of another kind than most training pictures: {_listed(odd)}.",
        count,
        f"An evaluation leaves out {refused:,}: both parts should come from one source."
        if refused
        else f"They are converted to {kinds.usual}; a score on them may be lower for that.",
        _single(index, f"reason IS NULL AND part = 1 AND {condition}", values),
    )


def _listed(kinds: dict[PixelFormat, int]) -> str:
    return _list([f"{count:,} with {kind}" for kind, count in kinds.items()])


def _copies(index: Index) -> Finding:
    grouped = "SELECT digest FROM good GROUP BY digest HAVING count(*) > 1 ORDER BY count(*) DESC, digest"
    sets, count = index.rows(
        "SELECT count(*), sum(n - 1) FROM (SELECT count(*) AS n FROM good GROUP BY digest HAVING n > 1)"
    )[0]
    if not sets:
        return _finding("copies", "fine", "No two files are the same.")
    return _finding(
        "copies",
        "look",
        f"{count_of(count, 'picture')} {_are(count)} an exact copy of another.",
        count,
        "They count double in training, and on both sides of a division they flatter the score. duplicates.jsonl lists "
        "the groups: keep one of each.",
        [members(index, digest, TOGETHER) for (digest,) in index.rows(f"{grouped} LIMIT {EXAMPLES}")],
    )


def _near(index: Index, copies: Duplicates) -> Finding:
    if not copies.groups:
        return _finding("near", "fine", "No two different files look alike.")
    places = [place for group in copies.groups for place in group]
    count = int(copies.counts[places].sum())
    examples = [
        [members(index, digest_of(index, copies, place), 1)[0] for place in group[:TOGETHER]]
        for group in _spread(copies.groups)
    ]
    largest = max(int(copies.counts[group].sum()) for group in copies.groups)
    sets = count_of(len(copies.groups), "group")
    return _finding(
        "near",
        "look",
        f"{count_of(count, 'picture')} look like another: {sets} of up to {largest:,}.",
        count,
        f"{_GROUPED} They are copies that were resized or recompressed, frames of one film, or shots of one scene: "
        "duplicates.jsonl lists the groups.",
        examples,
    )


def _constant(index: Index) -> Finding:
    count = index.number("SELECT count(*) FROM good WHERE constant")
    if not count:
        return _finding("constant", "fine", "No picture is of one colour throughout.")
    return _finding(
        "constant",
        "look",
        f"{count_of(count, 'picture')} {_are(count)} of one colour throughout, or nearly.",
        count,
        "Nothing can be learned from them: delete them unless an empty picture means something to you.",
        _single(index, "reason IS NULL AND constant"),
    )


def _sizes(index: Index) -> Iterator[Finding]:
    readable = index.number("SELECT count(*) FROM good")
    if not readable:
        return
    median = index.number("SELECT min(width, height) AS side FROM good ORDER BY side LIMIT 1 OFFSET ?", [readable // 2])
    least = max(TINY, median // SMALLER)
    for key, condition, told, advice in (
        (
            "tiny",
            f"min(width, height) < {least}",
            f"smaller than {least} pixels (the median is {median})",
            "Likely thumbnails or icons: delete them if they are.",
        ),
        (
            "huge",
            f"width * height >= {HUGE}",
            f"of more than {HUGE // 1_000_000} million pixels",
            "Each is shrunk to the size that is learned from, and its details are lost, unless you type --tile 256.",
        ),
        (
            "aspect",
            f"max(width, height) >= {ASPECT} * min(width, height)",
            f"at least {ASPECT} times as long as wide",
            "Only the centred square is learned from: cut them into squares if the rest matters.",
        ),
    ):
        count = index.number(f"SELECT count(*) FROM good WHERE {condition}")
        if count:
            sentence = f"{count_of(count, 'picture')} {_are(count)} {told}."
            yield _finding(key, "look", sentence, count, advice, _single(index, f"reason IS NULL AND {condition}"))


def _misnamed(index: Index) -> Finding:
    count = index.number("SELECT count(*) FROM good WHERE misnamed")
    if not count:
        return _finding("misnamed", "fine", "Every file is what its name says.")
    return _finding(
        "misnamed",
        "look",
        f"{count_of(count, 'file')} {_are(count)} of another format than the name says.",
        count,
        "They are read all the same, since the content decides; other tools may refuse them until they are renamed.",
        _single(index, "reason IS NULL AND misnamed"),
    )


def _converted(index: Index) -> Finding | None:
    condition = "mode IN ('CMYK', 'YCbCr', 'LAB', 'HSV', 'P', 'PA', 'RGBA', 'RGBa', 'LA', 'La', '1')"
    found = index.rows(f"SELECT mode, count(*) AS n FROM good WHERE {condition} GROUP BY mode ORDER BY n DESC, mode")
    if not found:
        return None
    names = {"P": "a palette", "1": "black and white", "RGBA": "transparency", "LA": "gray with transparency"}
    told = ", ".join(f"{count:,} × {names.get(mode, mode)}" for mode, count in found)
    count = sum(n for _, n in found)
    return _finding(
        "converted",
        "look",
        f"{count_of(count, 'picture')} {_keep(count)} colours in another way than gray or RGB: {told}.",
        count,
        "They are converted when they are read: look whether they come out right.",
        _single(index, f"reason IS NULL AND {condition}"),
    )


def _rotated(index: Index) -> Finding | None:
    count = index.number("SELECT count(*) FROM good WHERE rotated")
    if not count:
        return None
    return _finding(
        "rotated", "fine", f"{count_of(count, 'picture')} {_are(count)} turned upright by their EXIF data.", count
    )
