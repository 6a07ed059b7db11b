"""The two protocols: which contenders meet under which probes. Every contender gets the same pictures and settings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from diptych.evaluation.config import PROBES, ProbeName
from diptych.evaluation.contenders import Contender
from diptych.evaluation.features import PIXEL_SIDE, Features, is_averaged
from diptych.evaluation.numbers.headline import Headline
from diptych.evaluation.numbers.scores import Score
from diptych.evaluation.pictures import Labelled
from diptych.evaluation.probes import finetune, keras_protocol, knn
from diptych.evaluation.probes.finetune import Lesson
from diptych.evaluation.probes.holding_out import HELD_OUT
from diptych.evaluation.subsets import ALL, Budget, subset
from diptych.evaluation.task import Task, task_of
from diptych.progress import Terminal
from diptych.views.config import ViewsConfig

Trials = dict[str, dict[str, list[Score]]]
"""Contender → probe → its score with each seed, all with one budget of labels."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured."""

    probes: tuple[ProbeName, ...] = ("knn", "linear")
    budgets: tuple[Budget, ...] = (ALL,)
    """Labels that may be used, fewest first."""
    seeds: tuple[int, ...] = (0,)
    """Each draws the labelled pictures, the part that chooses hyper-parameters, and fine-tuning's order anew."""
    views: ViewsConfig = field(default_factory=ViewsConfig)
    """Flips and turns of fine-tuning."""
    steps: int | None = None
    """Of fine-tuning; chosen by the number of labels if None."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a protocol found, and the settings it used."""

    trials: list[Trials]
    """One for each budget."""
    rows: list[list[Tensor]]
    """For each budget and seed, the places of the pictures whose labels were used, ``(n,)`` int64."""
    settings: dict[str, Any]
    neighbors: knn.Neighbors | None = None
    """Those that the pretrained features find with the most labels, under the standard protocol."""


PicturesOf = Callable[[Contender], Labelled]
"""The pictures as a contender takes them: the same ones, in its own size and type."""
FeaturesOf = Callable[[Contender], tuple[Features, Features]]
"""Of the training and the test pictures."""


def measure_standard(
    contenders: Sequence[Contender], pictures: PicturesOf, features: FeaturesOf, plan: Plan, terminal: Terminal
) -> Measured:
    """Weighted kNN, a linear probe and fine-tuning, each contender with the same labels.

    Args:
        contenders: ``pretrained`` first.
        pictures: of each.
        features: of each.
        plan: what is measured.
        terminal: is told a line per contender and budget, and any reservation about a probe.
    """
    known = pictures(contenders[0])
    task = task_of(known)
    rows = [[subset(known.train_labels, budget, seed) for seed in plan.seeds] for budget in plan.budgets]
    trials: list[Trials] = [{} for _ in plan.budgets]
    neighbors = None
    for contender in contenders:
        probes = [probe for probe in plan.probes if takes_part(contender, probe)]
        found = features(contender) if set(probes) & {"knn", "linear"} else None
        for budget, table, drawn in zip(plan.budgets, trials, rows, strict=True):
            own = table[contender.key] = {}
            for probe in probes:
                if probe == "finetune":
                    own[probe] = _finetuned(contender, pictures(contender), drawn, plan, task)
                else:
                    assert found is not None
                    own[probe], last = _probed(probe, found, drawn, plan.seeds, task)
                    if last and contender is contenders[0]:
                        neighbors = last
                _warn(own[probe], f"{probe} on {contender.name}", terminal)
            if own:
                labels = f" with {budget.told} of the labels" if plan.budgets != (ALL,) else ""
                terminal.say(f"{contender.name}{labels}: {_means(own, task.headline)}")
    return Measured(trials=trials, rows=rows, settings=_settings(known, plan, task), neighbors=neighbors)


def takes_part(contender: Contender, probe: ProbeName) -> bool:
    """Whether a contender can be measured so: what has no weights to train is not fine-tuned, scratch is that only."""
    if probe != "finetune":
        return contender.kind != "scratch"
    trained = contender.backbone is not None and next(contender.backbone.module.parameters(), None) is not None
    return trained and contender.kind != "random"


def _probed(
    probe: ProbeName, features: tuple[Features, Features], drawn: Sequence[Tensor], seeds: Sequence[int], task: Task
) -> tuple[list[Score], knn.Neighbors | None]:
    """Score one probe on frozen features, with the labels of each seed; the neighbours are those of the last."""
    train, test = features
    scores: list[Score] = []
    neighbors = None
    for rows, seed in zip(drawn, seeds, strict=True):
        part = train.part(rows)
        if probe == "linear":
            answers, how = task.linear(part, test.values, seed)
            scores.append(task.score(answers, test.labels, **how))
        elif scores and len(rows) == len(train.labels):  # chance has no part in it: all labels, the same neighbours
            scores.append(scores[0])
        else:
            answers, neighbors = task.knn(part, test.values)
            scores.append(task.score(answers, test.labels))
    return scores, neighbors


def _finetuned(
    contender: Contender, pictures: Labelled, drawn: Sequence[Tensor], plan: Plan, task: Task
) -> list[Score]:
    """Train the whole network with the labels of each seed; the rate is chosen with those of the first."""
    assert contender.backbone is not None
    scores: list[Score] = []
    start = None
    for rows, seed in zip(drawn, plan.seeds, strict=True):
        lesson = Lesson(
            images=pictures.train.images[rows],
            labels=pictures.train_labels[rows],
            groups=None if pictures.train_groups is None else pictures.train_groups[rows],
            classes=len(task.names),
            views=plan.views,
            seed=seed,
            steps=plan.steps,
        )
        rate, probed = start = start or finetune.choose_start(contender.backbone, lesson)
        lesson = replace(lesson, is_probed=probed)
        tuned = finetune.finetune(contender.backbone, lesson, pictures.test.images, rate)
        how = {"lr": tuned.rate, "lr_at_edge": tuned.rate_at_edge, "steps": tuned.steps, "from_probe": probed}
        scores.append(task.score(tuned.logits, pictures.test_labels, **how))
    return scores


def _warn(scores: Sequence[Score], what: str, terminal: Terminal) -> None:
    """Say what speaks against trusting a probe."""
    if not all(s.details.get("converged", True) for s in scores):
        terminal.say(f"The probe {what} stopped before it converged: its accuracy is approximate")
    for key, name in (("l2", "L2 strength"), ("lr", "learning rate")):
        edges = {s.details[key] for s in scores if s.details.get(f"{key}_at_edge")}
        if edges:
            terminal.say(
                f"The probe {what} chose the outermost {name} tried, {min(edges):g}: a better one may lie beyond"
            )


def _means(own: Mapping[str, Sequence[Score]], headline: Headline) -> str:
    means = {probe: sum(s.value for s in found) / len(found) for probe, found in own.items()}
    return ", ".join(f"{probe} {headline.prefix}{headline.written(mean)}" for probe, mean in means.items())


def measure_keras(
    contenders: Sequence[Contender], pictures: PicturesOf, features: FeaturesOf, seed: int, terminal: Terminal
) -> Measured:
    """The Keras example's linear layer on each backbone; see ``keras_protocol``."""
    trials: Trials = {}
    known = pictures(contenders[0])
    task = task_of(known)
    for contender in contenders:
        if contender.backbone is None:
            continue
        own = pictures(contender)
        train, test = features(contender)
        flipped = contender.backbone.embed(own.train.images.flip(-1)).clone()
        probe = keras_protocol.fit_keras(train, flipped, test.values, len(own.classes), seed)
        result = task.score(probe.logits, test.labels, epoch_losses=probe.epoch_losses)
        trials[contender.key] = {"linear": [result]}
        terminal.say(f"{contender.name}: linear {task.headline.written(result.value)}")
    settings = {
        "optimizer": "SGD",
        "lr": keras_protocol.PEAK_LR,
        "momentum": keras_protocol.MOMENTUM,
        "batch_size": keras_protocol.BATCH,
        "epochs": keras_protocol.EPOCHS,
        "augmentation": "horizontal flip",
    }
    every = subset(known.train_labels, ALL, seed)
    return Measured(trials=[trials], rows=[[every]], settings={"linear": settings})


def _settings(pictures: Labelled, plan: Plan, task: Task) -> dict[str, Any]:
    averaged = f", averaged to {PIXEL_SIDE} × {PIXEL_SIDE}" if is_averaged(pictures.train.images) else ""
    known: dict[ProbeName, dict[str, Any]] = {
        "knn": {"k": min(knn.K, len(pictures.train)), "temperature": knn.TEMPERATURE, "similarity": "cosine"},
        "linear": task.linear_settings,
        "finetune": {
            "optimizer": "AdamW",
            "lr_chosen_on": f"{HELD_OUT:.0%} of the labelled pictures of the first seed",
            "lr_grid": list(finetune.RATES),
            "weight_decay": finetune.WEIGHT_DECAY,
            "batch_size": finetune.BATCH,
            "crops": 2,
            "crop_scale": list(finetune.CROP_SCALE),
        },
    }
    return {
        **{probe: known[probe] for probe in PROBES if probe in plan.probes},
        "pixels": f"pictures of {pictures.train.images.shape[-1]} px{averaged}, values 0..1",
    }
