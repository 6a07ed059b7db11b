"""Evaluate a run: the pretrained backbone, its random twin and raw pixels, under the same probes on the same pictures.

Where training began with other than random weights (``--init-from``), the network as it then was is a further
contender, and the one that the verdict compares with: whether it helped to train on these pictures is the question.
Others are met where they are asked for (``contenders``), each with the same labels.

Left behind are ``RUN/evaluation/<name>.json`` and, under the standard protocol, ``<name>-neighbors.png``,
``<name>-changed.png`` (of quantities ``<name>-answers.png``) and, where not all labels were used,
``labels/<name>.json``, which says whose were.
"""

import os
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from diptych.backbones.feature_choice import POOLED, parse_choice
from diptych.config import from_dict, to_dict
from diptych.errors import printable
from diptych.evaluation import files
from diptych.evaluation.against import Asked, parse_against
from diptych.evaluation.cache import FeatureCache
from diptych.evaluation.config import SCRATCH, EvaluateConfig
from diptych.evaluation.contenders import Contender, open_contenders
from diptych.evaluation.curve import OURS, Point, points_of
from diptych.evaluation.given import Given
from diptych.evaluation.groups import grouping, groups_of, together
from diptych.evaluation.leakage import Leaks, find_leaks
from diptych.evaluation.numbers.imbalance import imbalance
from diptych.evaluation.pictures import Labelled, Sources, open_labelled
from diptych.evaluation.protocols import Measured, Plan, measure_keras, measure_standard
from diptych.evaluation.subsets import ALL, ordered
from diptych.evaluation.task import Task, task_of
from diptych.frozen import open_finished
from diptych.progress import Terminal
from diptych.runs import SCHEMA_VERSION, RunFolder, write_json
from diptych.views.config import ViewsConfig

ENDINGS = r"\.(zip|tar|tgz|tar\.gz|csv|parquet|txt|lst)$"


def evaluate(
    run: str | Path, data: str, config: EvaluateConfig, *, device: str = "auto", terminal: Terminal | None = None
) -> dict[str, Any]:
    """Measure whether pretraining helped on labelled pictures, and write the answer into the run folder.

    Args:
        run: a finished run's folder.
        data: labelled pictures: a folder, an archive, a CSV file, or a known name; a CSV or Parquet file where several
            labels or quantities are asked for. Where it holds ``train/`` and
            ``test/``, the probes learn from the one and are tested on the other; else it is split 80/20 by the seed.
        config: what is asked.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        terminal: where to speak; nowhere if None.

    Returns:
        What ``RUN/evaluation/<name>.json`` holds.

    Raises:
        UserError: the run, the pictures or the arguments cannot be used as asked.
    """
    started = time.monotonic()
    terminal = terminal or Terminal(quiet=True)
    name = config.name or default_name(data, config.protocol)
    folder = RunFolder.open(run)
    card = folder.read_card()
    terminal.log_to(folder.log)
    choice = parse_choice(config.features, config.layer)
    _, made = open_finished(run)
    init_from = None if made.init_from is None else printable(made.init_from)
    contenders = open_contenders(run, _asked(config, began_at_random=init_from is None), device)
    sources = open_labelled(
        data,
        config.data_dir,
        config.limit,
        config.seed,
        made.preprocessing.tile,
        columns=config.columns,
        by_time=config.split == "time",
    )
    terminal.say(sources.found)
    given = Given(sources, FeatureCache(folder.features), choice, terminal)
    pictures = given.pictures(contenders[0])
    files.quarantine(folder, pictures, terminal)
    met = _met(contenders, given, terminal)
    groups = groups_of(sources.test, pictures.test)
    leaks = _leaks(contenders[0], groups, sources, given)
    task = task_of(pictures)
    skewed = imbalance(pictures.test_labels, pictures.classes) if task.kind == "classes" else None
    notes = [note for contender in contenders for note in contender.notes]
    said = [*leaks.sentences(), *grouping(groups)]
    for sentence in (*said, *([skewed] if skewed else []), *notes):
        terminal.say(sentence)
    terminal.say(f"{len(pictures.train):,} pictures to learn from, {len(pictures.test):,} to test on: {sources.note}")

    plan = _plan(config, card, len(pictures.train))
    if config.protocol == "keras":
        measured = measure_keras(contenders, given.pictures, given.features, config.seed, terminal)
    else:
        measured = measure_standard(contenders, given.pictures, given.features, plan, terminal)
    points = points_of(
        measured,
        plan,
        len(pictures.train),
        task.headline,
        groups=together(groups),
        unseen=not (met[OURS] or contenders[0].unknown or leaks.copied.any()),
        init_from=init_from,
    )

    path = folder.evaluation / f"{name}.json"
    if path.exists():
        terminal.say(f"Replacing the earlier {path}")
    changed = files.draw(path, pictures, measured, points[-1], config.seed)
    files.write_labels(path, sources, pictures, measured, plan)
    result = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "diptych": metadata.version("diptych"),
        "command": f"{shlex.join(['diptych', 'evaluate', str(run), data])} {config.words}",
        "run": str(run),
        "data": _described(sources, pictures, task, contenders, met, leaks, said, card),
        **({} if task.kind == "classes" else {"task": task.kind}),
        "protocol": config.protocol,
        "settings": measured.settings
        | ({} if choice == POOLED else {"features": to_dict(choice)})
        | ({} if plan.budgets == (ALL,) and config.seeds == 1 else {"labels": _budgets(plan)}),
        "seed": config.seed,
        **({} if init_from is None else {"init_from": init_from}),
        "names": {contender.key: contender.name for contender in contenders},
        **_found(measured, points),
        **({} if changed is None else {"changed": changed}),
        "leaks": leaks.to_dict() | {"without": _without(leaks, measured)},
        **({"imbalance": skewed} if skewed else {}),
        "seconds": round(time.monotonic() - started, 2),
    }
    write_json(path, result)
    return result


def default_name(data: str, protocol: str) -> str:
    """Name a result after its data, in letters, digits, - and _: ``my pictures.tar.gz`` → ``my-pictures``."""
    base = re.sub(ENDINGS, "", os.path.basename(os.path.abspath(data)), flags=re.IGNORECASE)
    base = re.sub(r"[^A-Za-z0-9_-]+", "-", base).strip("-") or "data"
    return f"{base}-keras" if protocol == "keras" else base


def _asked(config: EvaluateConfig, *, began_at_random: bool) -> list[Asked]:
    """Return whom to meet: whom the verdict compares with is always among them."""
    found = [] if config.against is None else parse_against(config.against)
    needed = ["random" if began_at_random else "initial"]
    if config.against is None:
        needed = [*needed, "random", "pixels"]
    if "finetune" in config.asked_probes and began_at_random:
        needed.append(SCRATCH)
    missing = [word for word in dict.fromkeys(needed) if word not in [asked.key for asked in found]]
    return [*(parse_against(",".join(missing)) if missing else []), *found]


def _plan(config: EvaluateConfig, card: Mapping[str, Any], total: int) -> Plan:
    views = card["config"] and card["config"].get("views")
    return Plan(
        probes=config.asked_probes,
        budgets=tuple(ordered(config.budgets, total)),
        seeds=tuple(range(config.seed, config.seed + config.seeds)),
        views=from_dict(ViewsConfig, views) if views else ViewsConfig(),
        steps=config.finetune_steps,
    )


def _budgets(plan: Plan) -> dict[str, Any]:
    return {"budgets": [budget.told for budget in plan.budgets], "seeds": len(plan.seeds)}


def _found(measured: Measured, points: Sequence[Point]) -> dict[str, Any]:
    """Return what was found: with the most labels, and as a curve where there were several budgets or seeds.

    Headlines are means over the seeds, details (confusions, recalls, how a probe was fitted) those of the first.
    """
    last, trials = points[-1], measured.trials[-1]
    headline = last.headline.key
    contenders = {
        key: {
            probe: {headline: (e := last.estimates[key][probe]).value, "ci95": [e.low, e.high]}
            | scores[0].to_dict()
            | {headline: e.value}
            for probe, scores in found.items()
        }
        for key, found in trials.items()
    }
    several = len(points) > 1 or any(len(scores) > 1 for scores in trials[OURS].values())
    return {
        "contenders": {key: found for key, found in contenders.items() if found},
        "compared_with": last.before,
        "differences": {probe: last.gains[key][probe].to_dict() for probe, key in last.before.items()},
        "gains": {key: {probe: gain.to_dict() for probe, gain in found.items()} for key, found in last.gains.items()},
        "verdict": last.verdict.to_dict(),
        **({"curve": [point.to_dict() for point in points]} if several else {}),
    }


def _met(contenders: Sequence[Contender], given: Given, terminal: Terminal) -> dict[str, int]:
    """Count, and say, how many of the test pictures each contender has met before, by their pixels."""
    found = {}
    for contender in contenders:
        test = given.pictures(contender).test
        found[contender.key] = met = int(np.isin(test.digests, contender.seen).sum())
        if met:
            who = "The backbone" if contender.key == OURS else contender.name
            terminal.say(f"{who} saw {met:,} of {len(test):,} test pictures, without their labels, during pretraining")
    return found


def _leaks(pretrained: Contender, tested: Sequence[str | None], sources: Sources, given: Given) -> Leaks:
    """Look for test pictures that the probes meet in training, too, as a copy, nearly so, or by their group."""
    pictures = given.pictures(pretrained)
    train, test = given.features(pretrained)
    learned = groups_of(sources.train, pictures.train)
    return find_leaks(pictures.train, pictures.test, learned, tested, (train.values, test.values))


def _without(leaks: Leaks, measured: Measured) -> dict[str, dict[str, float | None]]:
    """Return each contender's headline with the most labels on the test pictures that have not leaked, if any have."""
    kept = ~leaks.tainted
    if kept.all() or not kept.any():
        return {}
    return {
        key: {probe: _mean([score.within(kept) for score in scores]) for probe, scores in found.items()}
        for key, found in measured.trials[-1].items()
        if found
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _described(
    sources: Sources,
    pictures: Labelled,
    task: Task,
    contenders: Sequence[Contender],
    met: Mapping[str, int],
    leaks: Leaks,
    said: Sequence[str],
    card: Mapping[str, Any],
) -> dict[str, Any]:
    """Say what was tested on, and what of it was not new to whom."""
    note = sources.note
    for contender in contenders:
        who = "the backbone" if contender.key == OURS else contender.name
        if met[contender.key]:
            note += f"; {who} saw {met[contender.key]:,} of the test pictures, without labels, during pretraining"
        if contender.unknown and contender.kind != "initial":
            note += f"; which pictures the weights of {contender.unknown} had seen before is not known"
    probe = card.get("probe")
    if probe and probe["chose_weights"] and probe["fingerprint"] == sources.fingerprint:
        note += "; labels of this very data chose the weights (not those of its default test pictures)"
    for sentence in said:
        note += f"; {sentence}"
    return {
        "name": sources.name,
        "note": note,
        "train_pictures": len(pictures.train),
        "test_pictures": len(pictures.test),
        "skipped": len(pictures.bad),
        task.called: list(pictures.classes),
        "fingerprint": sources.fingerprint,
        "seen_in_pretraining": met[OURS],
        "copies_of_training": int(leaks.copied.sum()),
    }
