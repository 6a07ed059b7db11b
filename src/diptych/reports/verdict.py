"""The first thing on the page: did pretraining help, against what, by how much, and how sure that is."""

import shlex
from collections.abc import Sequence
from typing import Any

from diptych.config import flatten
from diptych.evaluation.table import BEFORE, compared_with, contender_names, headline_of
from diptych.evaluation.verdict import PROBE_NAMES
from diptych.markup import SPACE, command, date, duration, facts, get, name, plain, text
from diptych.reports.charts import Interval, interval_chart
from diptych.reports.collect import Evaluation, Facts
from diptych.reports.headlines import between, gained, written

PROTOCOLS = {
    "standard": "standard: weighted kNN, and logistic regression to convergence, on frozen features",
    "segmentation": "segmentation: logistic regression to convergence on a backbone’s maps, pixel by pixel",
    "keras": "keras: the Keras SimSiam example’s own linear layer, on frozen features",
}
QUANTITIES = "standard: weighted kNN, and ridge regression, on frozen features"
BADGES = {"helped": ("helped", "▲"), "hurt": ("hurt", "▼"), "no evidence": ("none", "≈")}
"""Outcome → style and sign: it never rests on colour alone."""
UNKNOWN = "Whether pretraining helped is not known yet."


def verdict_section(report: Facts) -> str:
    """Return the newest verdict and then the earlier ones, or what to type to get the first."""
    if not report.evaluations:
        return f'<section id="verdict">{_unknown(report)}</section>'
    newest, *earlier = report.evaluations
    older = "".join(f'<article class="earlier">{_evaluation(evaluation)}</article>' for evaluation in earlier)
    title = f"<h2>Earlier evaluation{'s' if len(earlier) > 1 else ''}</h2>" if earlier else ""
    return f'<section id="verdict">{_evaluation(newest)}</section>' + (
        f'<section id="earlier">{title}{older}</section>' if earlier else ""
    )


def title_of(evaluation: Evaluation) -> str:
    """Return an evaluation's name for headings, as HTML."""
    return name(evaluation.name)


def quoted_probe(result: dict[str, Any]) -> str:
    """Return the probe that the verdict quotes."""
    return str(result["verdict"]["probe"])


def probe_name(probe: str) -> str:
    """Return a probe's name for people."""
    return PROBE_NAMES.get(probe, probe)


def _badge(style: str, sign: str, said: str) -> str:
    return f'<p class="badge {style}"><span aria-hidden="true">{sign}</span> {text(said)}</p>'


def _unknown(report: Facts) -> str:
    run = shlex.quote(report.run)
    source = get(report.card, "config", "init_from")
    initial = "" if source is None else f" the same network as training began ({text(source)}), with"
    evaluating = (
        "<p>To find out, put some pictures into one folder per class and type</p>"
        + command(f"diptych evaluate {run} LABELLED/")
        + f'<p class="muted">This compares the backbone with{initial} the same network untrained and with raw pixels, '
        "on pictures that the probes have not seen, and writes the verdict here.</p>"
    )
    if get(report.card, "result", "status") in (None, "interrupted"):
        evaluating = (
            "<p>The run has not finished. If it was stopped, go on with</p>"
            + command(f"diptych pretrain --resume {run}")
            + evaluating.replace("To find out,", "When it has finished,", 1)
        )
    return _badge("open", "○", "not evaluated yet") + f'<p class="sentence">{text(UNKNOWN)}</p>' + evaluating


def _evaluation(evaluation: Evaluation) -> str:
    result = evaluation.result
    verdict = result["verdict"]
    style, sign = BADGES.get(verdict["outcome"], ("none", "?"))
    of = headline_of(result).name
    return (
        f'<div class="eyebrow">{_badge(style, sign, verdict["outcome"])}'
        f"<p>{title_of(evaluation)} · {text(date(result['created']))}</p></div>"
        f'<p class="sentence">{text(verdict["sentence"].replace(" %", SPACE + "%"))}</p>'
        f'<div class="pair"><figure>{_chart(result)}<figcaption>Dot: {of}. Bar: its 95{SPACE}% interval. '
        f"Shade: the {_shade(result)} network’s interval.</figcaption></figure>"
        f'<div class="scroll">{_table(result)}</div></div>' + _basis(result)
    )


def _shade(result: dict[str, Any]) -> str:
    others = dict.fromkeys(BEFORE[compared_with(result, probe)] for probe in result["differences"])
    return " or ".join(others)


def _scores(result: dict[str, Any], probe: str) -> Sequence[tuple[str, str, dict[str, Any]]]:
    """Contenders under a probe: kind, name for people, scores."""
    found = [(kind, label, get(result, "contenders", kind, probe)) for kind, label in contender_names(result).items()]
    return [(kind, label, scores) for kind, label, scores in found if scores]


def _chart(result: dict[str, Any]) -> str:
    groups, headline = [], headline_of(result)
    for probe in result["differences"]:
        intervals = [
            Interval(
                label="initial" if kind == "initial" else label,  # where it came from, in the table, may not fit here
                kind=kind,
                value=scores[headline.key],
                low=scores["ci95"][0],
                high=scores["ci95"][1],
            )
            for kind, label, scores in _scores(result, probe)
        ]
        groups.append((probe_name(probe), intervals))
    shaded = {probe_name(p): compared_with(result, p) for p in result["differences"]}
    return interval_chart(groups, shaded, headline)


def _table(result: dict[str, Any]) -> str:
    bodies, headline = [], headline_of(result)
    for probe, difference in result["differences"].items():
        rows = "".join(
            f'<tr class="{kind}"><th scope="row">{text(label)}</th><td>{written(headline, scores[headline.key])}</td>'
            f"<td>{between(headline, scores['ci95'])}</td><td>{written(headline, scores[headline.second])}</td></tr>"
            for kind, label, scores in _scores(result, probe)
        )
        low, high = (gained(headline, end) for end in difference["ci"])
        bodies.append(
            f'<tbody><tr class="group"><th colspan="4" scope="rowgroup">{text(probe_name(probe))}</th></tr>{rows}'
            f'<tr class="difference"><th scope="row">pretrained − {BEFORE[compared_with(result, probe)]}</th>'
            f"<td><b>{gained(headline, difference['points'])}</b>{headline.unit}</td><td colspan='2'>{low} to {high} "
            f'<span class="muted">({100 * difference["level"]:.3g}{SPACE}%)</span></td></tr></tbody>'
        )
    return (
        f'<table class="scores"><thead><tr><td></td><th scope="col">{headline.column.removesuffix(" %")}</th>'
        f'<th scope="col">95{SPACE}% interval</th><th scope="col">{headline.second_column.removesuffix(" %")}</th></tr>'
        f"</thead>{''.join(bodies)}</table>"
    )


def _basis(result: dict[str, Any]) -> str:
    """Say what the numbers rest on."""
    data, protocol = result["data"], result["protocol"]
    note = str(data["note"])
    pairs = [
        (
            "Pictures",
            f"<b>{data['test_pictures']:,}</b> to test on, {data['train_pictures']:,} to learn the probes from; "
            f"{_asked(data)}, from {name(data['name'])}",
        ),
        ("Split", text(note[:1].upper() + note[1:])),
        ("Protocol", text(QUANTITIES if "targets" in data else PROTOCOLS.get(protocol, protocol))),
        (
            "Tested",
            "once: whatever was chosen was chosen on training pictures, before the test pictures were predicted",
        ),
        ("Settings", f'<span class="muted">{_settings(result)}</span>'),
        ("Repeat it", f"<code>{text(result['command'])}</code> ({text(duration(result['seconds']))})"),
    ]
    return facts(pairs)


def _asked(data: dict[str, Any]) -> str:
    """Say how many classes or labels there are, or which quantities."""
    if "targets" in data:
        return f"to tell {text(', '.join(data['targets']))}"
    if "segments" in data:
        return f"{len(data['segments'])} classes of pixels"
    return f"{len(data['labels'])} labels, several a picture" if "labels" in data else f"{len(data['classes'])} classes"


def _settings(result: dict[str, Any]) -> str:
    """Write the probes' settings as sentences."""
    said = []
    for probe, settings in result["settings"].items():
        told = settings if isinstance(settings, dict) else {"": settings}
        values = ", ".join(f"{key.replace('_', ' ')} {_short(value)}".strip() for key, value in flatten(told).items())
        said.append(f"<b>{text(probe_name(probe))}</b> {text(values)}")
    return "<br>".join([*said, f"<b>seed</b> {text(result['seed'])}"])


def _short(value: object) -> str:
    """Write a value; of a long list its ends and its length."""
    if isinstance(value, list) and len(value) > 6:
        return f"{plain(value[0])} … {plain(value[-1])} ({len(value)} values)"
    return plain(value)
