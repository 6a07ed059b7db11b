"""The sections after the verdict: curves, warnings, pictures, confusions, and how the run was made."""

import re
from itertools import groupby
from typing import Any

from diptych.config import flatten
from diptych.markup import command, date, duration, facts, get, name, number, picture, plain, section, text
from diptych.reports.charts import Curve, line_chart
from diptych.reports.collect import Facts
from diptych.reports.confusion import confusion_of
from diptych.reports.verdict import title_of

SHOWN_BAD = 20

CURVES = (
    Curve(key="loss", title="Loss", note="what training lowers"),
    Curve(key="lr", title="Learning rate", note="step size of the optimiser", low=0.0),
    Curve(
        key="embedding_std",
        title="Spread of the embeddings",
        note="standard deviation × √d",
        low=0.0,
        high=1.0,
        references=((1.0, "1: well spread"), (0.0, "0: collapsed")),
    ),
    Curve(key="effective_rank", title="Effective rank", note="dimensions that the embeddings fill", low=0.0),
    Curve(key="neighbour_stability", title="Neighbour stability", note="between epochs", low=0.0, high=1.0),
    Curve(key="knn_top1", title="kNN accuracy", note="on the pictures with labels", low=0.0),
    Curve(key="linear_top1", title="Linear probe", note="accuracy on the pictures with labels", low=0.0),
)
MORE = (
    Curve(
        key="alignment",
        title="Alignment",
        note="squared distance of two views of a picture",
        low=0.0,
        references=((0.0, "0: aligned"),),
    ),
    Curve(
        key="uniformity",
        title="Uniformity",
        note="evenness on the sphere",
        low=-4.0,
        high=0.0,
        references=((-4.0, "−4: even"), (0.0, "0: collapsed")),
    ),
    Curve(key="gradient_norm", title="Gradient", note="length, all weights together", low=0.0),
    Curve(key="weight_norm", title="Weights", note="length, all together"),
    Curve(key="dead_dimensions", title="Dead dimensions", note="share that hardly varies", low=0.0, high=1.0),
)


def training_section(report: Facts) -> str:
    """Return what the guard found, and the curves."""
    charts, more = ([_figure(curve, report) for curve in curves] for curves in (CURVES, MORE))
    lede = (
        "A low loss alone proves nothing: where every picture gets the same embedding, the loss is at its best and the "
        "spread and the rank fall. Hover over a curve to read it."
    )
    nothing = "No step has been recorded yet."
    if get(report.card, "config", "method", "name") == "patches":
        nothing = "Nothing was trained: the weights were counted from the pictures, without gradients."
    body = f'<div class="multiples">{"".join(charts)}</div>' if any(charts) else f"<p>{nothing}</p>"
    if any(more):
        body += f'<h3>What the guard looks at besides</h3><div class="multiples">{"".join(more)}</div>'
    return section("training", "Training", lede if any(charts) else "", _health(report) + body)


def _figure(curve: Curve, report: Facts) -> str:
    points = [(r["epoch"], r[curve.key]) for r in report.records if "epoch" in r and r.get(curve.key) is not None]
    if not points:
        return ""
    caption = f"<figcaption><b>{text(curve.title)}</b> {text(curve.note)}</figcaption>"
    return f"<figure>{caption}{line_chart(curve, points)}</figure>"


def _health(report: Facts) -> str:
    """Tell the state of the run, since when, and what it was before."""
    if not report.health:
        return ""
    judged = [record for record in report.records if "health" in record]
    spans = [(state, next(group)["epoch"]) for state, group in groupby(judged, key=lambda record: record["health"])]
    state, since = spans[-1]
    before = "".join(f", {name} from epoch {number(epoch, 3)}" for name, epoch in spans[1:-1])
    history = f" Before that: {text(spans[0][0])}{text(before)}." if len(spans) > 1 else ""
    when = f" since epoch {number(since, 3)}" if len(spans) > 1 else ""
    if state == "healthy":
        found = f"<b>✓ Healthy</b>{when}: {text('; '.join(report.health.evidence))}."
    else:
        found = f'<b>⚠ {text(state.capitalize())}</b>{when}: <a href="#warnings">what was found, and what to try</a>.'
    return f'<p class="health {"good" if state == "healthy" else "ill"}">{found}{history}</p>'


def _warnings(report: Facts) -> list[str]:
    if report.health and report.health.state != "healthy":
        return [report.health.told]
    return get(report.card, "result", "warnings") or []


def warnings_section(report: Facts) -> str:
    """Return what the run warned of, its numbered advice as a list."""
    warnings = _warnings(report)
    body = "".join(f'<div class="warning" role="note">{_warning(str(warning))}</div>' for warning in warnings)
    return section("warnings", "Warning" if len(warnings) == 1 else "Warnings", "", body)


def _warning(warning: str) -> str:
    head, *advice = re.split(r"\s*\(\d\)\s*", warning)
    items = "".join(f"<li>{text(item.rstrip('; .'))}</li>" for item in advice)
    return f'<p><span class="sign" aria-hidden="true">⚠</span> {text(head)}</p>' + (
        f"<ol>{items}</ol>" if items else ""
    )


def views_section(report: Facts) -> str:
    """Return the pictures with their views."""
    if report.views is None:
        return ""
    lede = (
        "The network learns to give two views of one picture the same embedding. What differs between them here, it "
        "learns to ignore."
    )
    image = picture(report.views, "Pictures of the training data, each with the two views made from it")
    return section("views", "Two views of one picture", lede, f'<figure class="sheet">{image}</figure>')


def neighbors_section(report: Facts) -> str:
    """Return the test pictures with their nearest neighbours, of every evaluation that drew them."""
    parts = []
    for evaluation in report.evaluations:
        if evaluation.neighbors:
            image = picture(
                evaluation.neighbors, f"Test pictures of {evaluation.name} with their nearest training pictures"
            )
            parts.append(f'<h3>{title_of(evaluation)}</h3><figure class="sheet">{image}</figure>')
    lede = (
        "What the pretrained backbone takes for alike. ✓: of the same class; ✗: of another. Numbers: cosine similarity."
    )
    return section("neighbors", "Nearest neighbours", lede, "".join(parts))


def changed_section(report: Facts) -> str:
    """Return the test pictures that pretraining put right, and those that it spoiled, of every evaluation."""
    parts = []
    for evaluation in report.evaluations:
        if evaluation.changed:
            image = picture(
                evaluation.changed,
                f"Test pictures of {evaluation.name} that pretraining put right, and that it spoiled",
            )
            parts.append(f'<h3>{title_of(evaluation)}</h3><figure class="sheet">{image}</figure>')
    lede = "Drawn at random. Green: what a picture shows. Red: what it was taken for."
    return section("changed", "What pretraining changed", lede, "".join(parts))


def answers_section(report: Facts) -> str:
    """Return the quantities that were answered over the true ones, of every evaluation that asked for some."""
    parts = []
    for evaluation in report.evaluations:
        if evaluation.answers:
            image = picture(evaluation.answers, f"Answers over the truth, test pictures of {evaluation.name}")
            parts.append(f'<h3>{title_of(evaluation)}</h3><figure class="sheet">{image}</figure>')
    return section("answers", "Answers and truth", "On the line lies what was answered exactly.", "".join(parts))


def masks_section(report: Facts) -> str:
    """Return test pictures beside their true and their predicted masks, of every segmentation."""
    parts = []
    for evaluation in report.evaluations:
        if evaluation.masks:
            image = picture(evaluation.masks, f"True and predicted masks of test pictures of {evaluation.name}")
            parts.append(f'<h3>{title_of(evaluation)}</h3><figure class="sheet">{image}</figure>')
    return section("masks", "Masks", "Test pictures drawn at random; empty: nothing is known.", "".join(parts))


def confusion_section(report: Facts) -> str:
    """Return which classes are mistaken for which, of every evaluation."""
    return section(
        "confusion", "Confusions", "", "".join(confusion_of(evaluation) for evaluation in report.evaluations)
    )


def made_section(report: Facts) -> str:
    """Return all that is needed to repeat the run."""
    card = report.card
    parts = [command(card["command"])] if card.get("command") else []
    if choices := card.get("choices"):
        items = "".join(f"<li><b>{text(c['what'])}</b> <span>{text(c['why'])}</span></li>" for c in choices)
        parts.append(f"<h3>Chosen for you, and why</h3><ul class='choices'>{items}</ul>")
    parts.append(f"<h3>The run</h3>{facts(_provenance(card))}")
    parts.append(f"<h3>Every setting</h3>{_settings(card['config'])}")
    parts.append(_quarantine(report.quarantine))
    return section(
        "made", "How this run was made", "The command that repeats it:" if card.get("command") else "", "".join(parts)
    )


def _provenance(card: dict[str, Any]) -> list[tuple[str, str]]:
    data, hardware, result = card["data"], card["hardware"], card["result"]
    note = f"<br>{text(data['note'])}" if data.get("note") else ""
    skipped = f"; <b>{data['skipped']:,} could not be read</b>" if data["skipped"] else ""
    pairs = [
        ("Recipe", text(card["recipe"])),
        ("Pictures", f"{data['pictures']:,} from {name(data['name'])}{skipped}{note}"),
        ("Fingerprint", f'<code class="hash">{text(data["fingerprint"])}</code>'),
        ("Begun", text(date(card["started"]))),
    ]
    if initial := card.get("initial"):
        notes = "".join(f"<br>{text(note)}" for note in initial["notes"])
        sha256 = f'<code class="hash">{text(initial["sha256"])}</code>'
        pairs.append(("Began with", f"{text(initial['file'])} {sha256}{notes}"))
    if probe := card.get("probe"):
        said = "<b>these labels chose the weights that were kept</b>" if probe["chose_weights"] else "training saw none"
        counts = f"{probe['train_pictures']:,} to learn a probe from, {probe['test_pictures']:,} to judge it by"
        pairs.append(("Followed by labels", f"{name(probe['name'])}: {counts}; {said}"))
    for done in card.get("recoveries", []):
        what = f"{done['state']} at step {done['at']:,}: back to step {done['back_to']:,}, and on with {done['change']}"
        pairs.append(("Recovery", text(what)))
    if result:
        pairs.append(
            (
                "Result",
                f"{text(result['status'])} after {number(result['epochs'], 3)} epochs ({result['steps']:,} steps, "
                f"{text(duration(result['seconds']))}, {result['images_per_second']:,.0f} pictures a second), "
                + ("no loss" if result["loss"] is None else f"loss {number(result['loss'])}"),
            )
        )
    pairs += [
        ("Hardware", text(", ".join(f"{key.replace('_', ' ')} {plain(value)}" for key, value in hardware.items()))),
        (
            "Versions",
            text(
                ", ".join(f"{key} {value}" for key, value in {"diptych": card["diptych"], **card["versions"]}.items())
            ),
        ),
    ]
    if card.get("git_commit"):
        pairs.append(("Commit", f'<code class="hash">{text(card["git_commit"])}</code>'))
    return pairs


def _settings(config: dict[str, Any]) -> str:
    """Return the whole configuration, one list per component."""
    # Python's sort is stable: settings of the run itself come first, the others in the components' own order.
    flat = sorted(flatten(config).items(), key=lambda item: ("." in item[0], item[0].rpartition(".")[0]))
    groups = []
    for owner, items in groupby(flat, key=lambda item: item[0].rpartition(".")[0]):
        rows = "".join(
            f'<tr><th scope="row">{text(key.rpartition(".")[2])}</th><td>{text(plain(value))}</td></tr>'
            for key, value in items
        )
        groups.append(f'<table class="settings"><caption>{text(owner or "run")}</caption><tbody>{rows}</tbody></table>')
    return f'<div class="columns">{"".join(groups)}</div>'


def _quarantine(records: list[dict[str, Any]]) -> str:
    if not records:
        return ""
    items = "".join(
        f"<li>{name(record.get('name', '?'))} <span class='muted'>{text(record.get('reason', ''))}"
        f"{_during(record)}</span></li>"
        for record in records[:SHOWN_BAD]
    )
    many = len(records) > 1
    rest = (
        f"<p class='muted'>and {len(records) - SHOWN_BAD:,} more in quarantine.jsonl</p>"
        if len(records) > SHOWN_BAD
        else ""
    )
    return (
        f"<h3>{len(records):,} picture{'s' if many else ''} that could not be read</h3>"
        f"<ul class='quarantine'>{items}</ul>{rest}"
    )


def _during(record: dict[str, Any]) -> str:
    return f" (during {text(record['during'])})" if record.get("during") else ""


def status_line(report: Facts) -> str:
    """Return one line of HTML about what was trained, on what, and how it ended."""
    card = report.card
    method, backbone = get(card, "config", "method", "name"), get(card, "config", "backbone")
    parts = [text(part) for part in (method, backbone) if part]
    parts.append(f"{card['data']['pictures']:,} pictures of {name(card['data']['name'])}")
    result = card["result"]
    if not result:
        at = f", last seen at epoch {number(report.records[-1]['epoch'], 3)}" if report.records else ""
        planned = get(card, "config", "train", "epochs")
        parts.append(f"<b>not finished</b>{at}{f' of {planned}' if at and planned else ''}")
    else:
        ended = {
            "finished": "trained for",
            "stopped early": "stopped early after",
            "collapsed": "stopped by the guard after",
        }.get(result["status"], "interrupted after")
        epochs = number(result["epochs"], 3)
        parts.append(f"{ended} {epochs} epoch{'' if epochs == '1' else 's'} in {text(duration(result['seconds']))}")
    if warnings := _warnings(report):
        parts.append(f'<a href="#warnings">⚠ {len(warnings)} warning{"s" if len(warnings) > 1 else ""}</a>')
    return " · ".join(parts)
