"""The two protocols: which contenders meet under which probes. Every contender gets the same pictures and settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diptych.evaluation import keras_protocol, knn, linear
from diptych.evaluation.features import PIXEL_SIDE, Features, backbone_features, is_averaged, pixel_features
from diptych.evaluation.pictures import Labelled
from diptych.evaluation.scores import Score, score
from diptych.frozen import FrozenBackbone
from diptych.progress import Terminal

Scores = dict[str, dict[str, Score]]
"""Contender → probe → score."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a protocol found, and the settings it used."""

    scores: Scores
    settings: dict[str, Any]
    neighbors: knn.Neighbors | None = None
    """Those that the pretrained features find, under the standard protocol."""


def measure_standard(
    backbones: Mapping[str, FrozenBackbone], pictures: Labelled, seed: int, terminal: Terminal
) -> Measured:
    """Weighted kNN and logistic regression, on each backbone's features and on raw pixels.

    Args:
        backbones: ``pretrained``, perhaps ``initial``, and ``random``.
        pictures: to learn from and to be tested on.
        seed: of the split of the training pictures that chooses the linear probe's L2 strength.
        terminal: is told a line per contender, and any reservation about a probe.
    """
    scores: Scores = {}
    found = {}
    for contender in (*backbones, "pixels"):
        train, test = _features(backbones.get(contender), pictures)
        predictions, found[contender] = knn.classify(train, test.values, len(pictures.classes))
        scores[contender] = {
            "knn": score(predictions, test.labels, pictures.classes),
            "linear": _linear(train, test, pictures.classes, seed, contender, terminal),
        }
        terminal.say(
            f"{contender}: " + ", ".join(f"{probe} {100 * s.top1:.1f} %" for probe, s in scores[contender].items())
        )
    return Measured(scores=scores, settings=_standard_settings(pictures), neighbors=found["pretrained"])


def measure_keras(
    backbones: Mapping[str, FrozenBackbone], pictures: Labelled, seed: int, terminal: Terminal
) -> Measured:
    """The Keras example's linear layer on each backbone; see ``keras_protocol``."""
    scores: Scores = {}
    for contender, backbone in backbones.items():
        train, test = _features(backbone, pictures)
        flipped = backbone_features(backbone, pictures.train.images.flip(-1), pictures.train_labels)
        probe = keras_protocol.fit_keras(train, flipped.values, test.values, len(pictures.classes), seed)
        result = score(probe.predictions, test.labels, pictures.classes, epoch_losses=probe.epoch_losses)
        scores[contender] = {"linear": result}
        terminal.say(f"{contender}: linear {100 * result.top1:.1f} %")
    settings = {
        "optimizer": "SGD",
        "lr": keras_protocol.PEAK_LR,
        "momentum": keras_protocol.MOMENTUM,
        "batch_size": keras_protocol.BATCH,
        "epochs": keras_protocol.EPOCHS,
        "augmentation": "horizontal flip",
    }
    return Measured(scores=scores, settings={"linear": settings})


def _features(backbone: FrozenBackbone | None, pictures: Labelled) -> tuple[Features, Features]:
    """Features of the training and the test pictures; raw pixels where there is no backbone."""
    train, test = (pictures.train.images, pictures.train_labels), (pictures.test.images, pictures.test_labels)
    if backbone is None:
        return pixel_features(*train), pixel_features(*test)
    return backbone_features(backbone, *train), backbone_features(backbone, *test)


def _linear(
    train: Features, test: Features, classes: Sequence[str], seed: int, contender: str, terminal: Terminal
) -> Score:
    """Score the linear probe, and say what speaks against trusting it."""
    probe = linear.fit_linear(train, test.values, len(classes), seed)
    if not probe.converged:
        terminal.say(f"The linear probe on {contender} stopped before it converged: its accuracy is approximate")
    if probe.at_edge:
        terminal.say(
            f"The linear probe on {contender} chose the outermost L2 strength tried, {probe.l2:g}: "
            "a better one may lie beyond"
        )
    return score(
        probe.predictions,
        test.labels,
        classes,
        l2=probe.l2,
        l2_at_edge=probe.at_edge,
        iterations=probe.iterations,
        converged=probe.converged,
    )


def _standard_settings(pictures: Labelled) -> dict[str, Any]:
    averaged = f", averaged to {PIXEL_SIDE} × {PIXEL_SIDE}" if is_averaged(pictures.train.images) else ""
    return {
        "knn": {"k": min(knn.K, len(pictures.train)), "temperature": knn.TEMPERATURE, "similarity": "cosine"},
        "linear": {
            "objective": "mean cross-entropy + l2/2 · squared weights, on standardised features",
            "l2_chosen_on": f"{linear.HELD_OUT:.0%} of the training pictures",
            "l2_grid": list(linear.L2_GRID),
            "tolerance": linear.TOLERANCE,
            "max_iterations": linear.MAX_ITERATIONS,
        },
        "pixels": f"pictures of {pictures.train.images.shape[-1]} px{averaged}, values 0..1",
    }
