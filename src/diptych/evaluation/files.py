"""What an evaluation leaves behind beside its result: figures, whose labels were used, what could not be read."""

from pathlib import Path
from typing import Any

import torch

from diptych import figures
from diptych.evaluation.curve import OURS, Point
from diptych.evaluation.numbers.scores import Score
from diptych.evaluation.pictures import Labelled, Sources
from diptych.evaluation.probes.knn import Neighbors
from diptych.evaluation.protocols import Measured, Plan
from diptych.evaluation.table import BEFORE
from diptych.progress import Terminal
from diptych.runs import SCHEMA_VERSION, RunFolder, write_json, writing_errors
from diptych.seeding import generator

SHOWN_QUERIES, SHOWN_NEIGHBORS, SHOWN_CHANGES = 8, 6, 8


def quarantine(folder: RunFolder, pictures: Labelled, terminal: Terminal) -> None:
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


def draw(path: Path, pictures: Labelled, measured: Measured, point: Point, seed: int) -> dict[str, Any] | None:
    """Draw what the backbone takes for alike, and what pretraining changed, beside the result at ``path``.

    Of quantities, the answers are drawn over the truth; of several labels, nothing.

    Args:
        path: of the result.
        pictures: as the run takes them.
        measured: what was found.
        point: of the largest budget.
        seed: of the choice of pictures.

    Returns:
        How many pictures were changed, for the result; None where there are no classes.
    """
    alike, changed, answers = (
        path.with_name(f"{path.stem}-{what}.png") for what in ("neighbors", "changed", "answers")
    )
    for figure in (alike, changed, answers):  # of an earlier evaluation of this name
        with writing_errors(figure):
            figure.unlink(missing_ok=True)
    if pictures.train_labels.ndim == 2:
        if pictures.train_labels.dtype != torch.bool:
            _draw_answers(answers, pictures, measured, point)
        return None
    if measured.neighbors:
        indices = measured.rows[-1][-1][measured.neighbors.indices]
        _draw_neighbors(alike, pictures, Neighbors(indices, measured.neighbors.similarities), seed)
    return _draw_changed(changed, pictures, measured, point, seed)


def _draw_changed(path: Path, pictures: Labelled, measured: Measured, point: Point, seed: int) -> dict[str, Any]:
    """Draw test pictures that pretraining put right, and such that it spoiled, by the probe that the verdict quotes."""
    probe, against, ours, theirs = _quoted(measured, point)
    fixed, broke = ours.correct & ~theirs.correct, theirs.correct & ~ours.correct
    blocks = []
    for title, which, taken in (
        (f"right with pretraining, wrong before ({int(fixed.sum()):,} pictures)", fixed, theirs),
        (f"right before, wrong with pretraining ({int(broke.sum()):,} pictures)", broke, ours),
    ):
        rows = which.nonzero()[:, 0]
        rows = rows[torch.randperm(len(rows), generator=generator(seed))[:SHOWN_CHANGES]]
        said = [
            (pictures.classes[truth], pictures.classes[wrong])
            for truth, wrong in zip(pictures.test_labels[rows].tolist(), taken.predictions[rows].tolist(), strict=True)
        ]
        blocks.append((title, pictures.test.images[rows], said))
    if any(said for _, _, said in blocks):
        figures.mistakes(path, blocks)
    return {"probe": probe, "against": against, "fixed": int(fixed.sum()), "broke": int(broke.sum())}


def _draw_answers(path: Path, pictures: Labelled, measured: Measured, point: Point) -> None:
    """Draw what the probe that the verdict quotes answers, over the truth, with pretraining and before."""
    _, against, ours, theirs = _quoted(measured, point)
    names = ("pretrained", BEFORE[against])
    figures.answers(
        path,
        [
            (name, truth, list(zip(names, found, strict=True)))
            for name, truth, *found in zip(
                pictures.classes, ours.truth.T.numpy(), ours.answers.T.numpy(), theirs.answers.T.numpy(), strict=True
            )
        ],
    )


def _quoted(measured: Measured, point: Point) -> tuple[str, str, Score, Score]:
    """Return the probe that the verdict quotes, whom it compares with, and the scores of both with the first seed."""
    probe = point.verdict.probe
    against = point.before[probe]
    return probe, against, measured.trials[-1][OURS][probe][0], measured.trials[-1][against][probe][0]


def write_labels(path: Path, sources: Sources, pictures: Labelled, measured: Measured, plan: Plan) -> None:
    """Write which pictures lent their labels, by name, where not all did; an earlier file does not stay.

    Args:
        path: of the result.
        sources: where the pictures come from.
        pictures: as the run takes them.
        measured: what was found.
        plan: what was asked.
    """
    own = path.parent / "labels" / path.name
    places = pictures.train.source_indices
    budgets = {
        budget.told: {
            str(seed): [sources.train.name_of(place) for place in places[rows].tolist()]
            for seed, rows in zip(plan.seeds, drawn, strict=True)
        }
        for budget, drawn in zip(plan.budgets, measured.rows, strict=True)
        if budget.share != 1
    }
    if budgets:
        write_json(own, {"schema_version": SCHEMA_VERSION, "data": sources.name, "labels": budgets})
    else:
        with writing_errors(own):
            own.unlink(missing_ok=True)
