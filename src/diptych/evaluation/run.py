"""Evaluate a run: the pretrained backbone, its random twin and raw pixels, under the same probes on the same pictures.

Where training began with other than random weights (``--init-from``), the network as it then was is a fourth contender,
and the one that the verdict compares with: whether it helped to train on these pictures is the question.

Left behind are ``RUN/evaluation/<name>.json`` and, under the standard protocol, ``<name>-neighbors.png``.
"""

import os
import re
import shlex
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from diptych import figures
from diptych.data.stores.digests import read_digests
from diptych.errors import ConfigError, printable, suggest
from diptych.evaluation.knn import Neighbors
from diptych.evaluation.pictures import Labelled, Overlap, Sources, open_labelled, overlap, read_labelled
from diptych.evaluation.protocols import measure_keras, measure_standard
from diptych.evaluation.scores import difference
from diptych.evaluation.verdict import decide, level_for
from diptych.frozen import load, load_initial, random_twin
from diptych.progress import Terminal
from diptych.runs import SCHEMA_VERSION, RunFolder, write_json, writing_errors
from diptych.seeding import generator

ENDINGS = r"\.(zip|tar|tgz|tar\.gz|csv|parquet|txt|lst)$"
SHOWN_QUERIES, SHOWN_NEIGHBORS = 8, 6

Protocol = Literal["standard", "keras"]


def evaluate(
    run: str | Path,
    data: str,
    *,
    data_dir: str | None = None,
    protocol: Protocol = "standard",
    limit: int | None = None,
    seed: int = 0,
    name: str | None = None,
    device: str = "auto",
    terminal: Terminal | None = None,
) -> dict[str, Any]:
    """Measure whether pretraining helped on labelled pictures, and write the answer into the run folder.

    Args:
        run: a finished run's folder.
        data: labelled pictures: a folder, an archive, a CSV file, or a known name. Where it holds ``train/`` and
            ``test/``, the probes learn from the one and are tested on the other; else it is split 80/20 by ``seed``.
        data_dir: where a known data set lies.
        protocol: ``standard`` (weighted kNN, and logistic regression to convergence) or ``keras`` (the Keras SimSiam
            example's own linear layer).
        limit: draw this many pictures from each of ``train/`` and ``test/``, or from all of ``data``.
        seed: of every draw made here, save the one of ``limit``, which never changes.
        name: of the result; by default that of the data, with ``-keras`` for that protocol.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        terminal: where to speak; nowhere if None.

    Returns:
        What ``RUN/evaluation/<name>.json`` holds.

    Raises:
        UserError: the run, the pictures or the arguments cannot be used as asked.
    """
    started = time.monotonic()
    terminal = terminal or Terminal(quiet=True)
    _refuse(protocol, limit, seed, name)
    name = name or default_name(data, protocol)
    folder = RunFolder.open(run)
    card = folder.read_card()
    terminal.log_to(folder.log)
    pretrained, initial = load(run, device), load_initial(run, device)
    backbones = {"pretrained": pretrained} | ({"initial": initial} if initial else {})
    backbones["random"] = random_twin(run, device)
    init_from = printable(pretrained.init_from) if pretrained.init_from is not None else None
    made = pretrained.preprocessing
    sources = open_labelled(data, data_dir, limit, seed, made.tile)
    terminal.say(sources.found)
    pictures = read_labelled(sources, made.image_size, made.pixels, terminal)
    _quarantine(folder, pictures, terminal)
    met = _overlap(folder, pictures, terminal)
    unknown = None if folder.initial_pictures.exists() else init_from
    terminal.say(f"{len(pictures.train):,} pictures to learn from, {len(pictures.test):,} to test on: {sources.note}")

    measured = (measure_keras if protocol == "keras" else measure_standard)(backbones, pictures, seed, terminal)
    scores = measured.scores
    level = level_for(len(scores["pretrained"]))
    against = scores["initial" if initial else "random"]
    differences = {p: difference(scores["pretrained"][p], against[p], level) for p in against}
    top1 = {contender: {probe: s.top1 for probe, s in probes.items()} for contender, probes in scores.items()}
    unseen = not (met.pretraining or unknown)
    verdict = decide(differences, top1, len(pictures.test), unseen=unseen, init_from=init_from)

    result = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "diptych": metadata.version("diptych"),
        "command": _command(run, data, data_dir, protocol, limit, seed, name),
        "run": str(run),
        "data": _describe(sources, pictures, met, unknown, card),
        "protocol": protocol,
        "settings": measured.settings,
        "seed": seed,
        **({"init_from": init_from} if initial else {}),
        "contenders": {c: {probe: s.to_dict() for probe, s in probes.items()} for c, probes in scores.items()},
        "differences": {probe: d.to_dict() for probe, d in differences.items()},
        "verdict": verdict.to_dict(),
        "seconds": round(time.monotonic() - started, 2),
    }
    path = folder.evaluation / f"{name}.json"
    if path.exists():
        terminal.say(f"Replacing the earlier {path}")
    figure = path.with_name(f"{name}-neighbors.png")
    if measured.neighbors:
        _draw_neighbors(figure, pictures, measured.neighbors, seed)
    else:  # an earlier evaluation of this name may have left one
        with writing_errors(figure):
            figure.unlink(missing_ok=True)
    write_json(path, result)
    return result


def default_name(data: str, protocol: Protocol) -> str:
    """Name a result after its data, in letters, digits, - and _: ``my pictures.tar.gz`` → ``my-pictures``."""
    base = re.sub(ENDINGS, "", os.path.basename(os.path.abspath(data)), flags=re.IGNORECASE)
    base = re.sub(r"[^A-Za-z0-9_-]+", "-", base).strip("-") or "data"
    return f"{base}-keras" if protocol == "keras" else base


def _refuse(protocol: str, limit: int | None, seed: int, name: str | None) -> None:
    """Refuse arguments out of range."""
    if protocol not in get_args(Protocol):
        raise ConfigError(f"unknown protocol '{protocol}'{suggest(protocol, get_args(Protocol))}")
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit must be at least 1, not {limit}")
    if seed < 0:
        raise ConfigError(f"--seed must be 0 or more, not {seed}")
    if name is not None and not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ConfigError(f"--name may hold letters, digits, - and _ alone, not '{name}'")


def _overlap(folder: RunFolder, pictures: Labelled, terminal: Terminal) -> Overlap:
    """Find what was met before, and say so."""
    found = overlap(pictures, read_digests(folder))
    total = f"of {len(pictures.test):,} test pictures"
    if found.pretraining:
        terminal.say(f"The backbone saw {found.pretraining:,} {total}, without their labels, during pretraining")
    if found.training:
        terminal.say(f"{found.training:,} {total} are exact copies of pictures that the probes learn from")
    return found


def _quarantine(folder: RunFolder, pictures: Labelled, terminal: Terminal) -> None:
    """List what could not be read; a second evaluation of the same pictures does not list them twice."""
    listed = {record["name"] for record in folder.read_lines(folder.quarantine) if record["during"] == "evaluate"}
    for bad in pictures.bad:
        if bad.name not in listed:
            folder.append(folder.quarantine, {"name": bad.name, "reason": bad.reason, "during": "evaluate"})
    if pictures.bad:
        first = pictures.bad[0]
        terminal.say(
            f"{len(pictures.bad)} pictures could not be read and are left out (first {first.name}: {first.reason}); "
            f"{folder.quarantine} lists them all"
        )


def _draw_neighbors(path: Path, pictures: Labelled, neighbors: Neighbors, seed: int) -> None:
    """Draw a few test pictures beside the training pictures that the pretrained backbone finds most alike."""
    shown = torch.randperm(len(pictures.test), generator=generator(seed))[:SHOWN_QUERIES]
    indices = neighbors.indices[shown, :SHOWN_NEIGHBORS]
    near = pictures.train.images[indices.flatten()]
    figures.neighbors(
        path,
        pictures.test.images[shown],
        near.reshape(*indices.shape, *near.shape[1:]),
        [pictures.classes[label] for label in pictures.test_labels[shown].tolist()],
        [[pictures.classes[label] for label in row] for row in pictures.train_labels[indices].tolist()],
        neighbors.similarities[shown, :SHOWN_NEIGHBORS],
    )


def _describe(
    sources: Sources, pictures: Labelled, met: Overlap, unknown: str | None, card: Mapping[str, Any]
) -> dict[str, Any]:
    """Say what was tested on; ``unknown`` are the weights of which nobody knows what pictures they have seen."""
    note = sources.note
    if met.pretraining:
        note += f"; the backbone saw {met.pretraining:,} of the test pictures, without labels, during pretraining"
    if unknown:
        note += f"; which pictures the weights of {unknown} had seen before is not known"
    probe = card.get("probe")
    if probe and probe["chose_weights"] and probe["fingerprint"] == sources.fingerprint:
        note += "; labels of this very data chose the weights (not those of its default test pictures)"
    if met.training:
        note += f"; {met.training:,} of the test pictures are exact copies of training pictures"
    return {
        "name": sources.name,
        "note": note,
        "train_pictures": len(pictures.train),
        "test_pictures": len(pictures.test),
        "skipped": len(pictures.bad),
        "classes": list(pictures.classes),
        "fingerprint": sources.fingerprint,
        "seen_in_pretraining": met.pretraining,
        "copies_of_training": met.training,
    }


def _command(
    run: str | Path, data: str, data_dir: str | None, protocol: Protocol, limit: int | None, seed: int, name: str
) -> str:
    """Return a command line that repeats the evaluation."""
    words = ["diptych", "evaluate", str(run), data, "--seed", str(seed)]
    words += ["--data-dir", data_dir] if data_dir else []
    words += ["--protocol", protocol] if protocol != "standard" else []
    words += ["--limit", str(limit)] if limit else []
    words += ["--name", name] if name != default_name(data, protocol) else []
    return shlex.join(words)
