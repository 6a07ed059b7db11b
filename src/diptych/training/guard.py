"""The guard: tells from a run's records whether it learns, and where it does not, by what, and what to try next.

A verdict is a function of the records alone: a run that was resumed is judged as one that never stopped. Losses of
different methods have nothing in common, so it looks at what has the same meaning for all: how the embeddings lie, how
far apart two views of a picture are, how far the weights move. Where the thresholds come from, and how far runs that
fail lie from those that do not: ``benchmarks/guard.py`` and docs/results.md.
"""

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias

from diptych.training.config import RunConfig
from diptych.training.order import flags
from diptych.views.config import ViewsConfig

State: TypeAlias = Literal[
    "healthy", "not learning", "data-starved", "dimensional collapse", "complete collapse", "diverging"
]
"""From the best to the gravest: a run that is several of these is said to be the gravest."""
Records: TypeAlias = Sequence[Mapping[str, Any]]
"""Of ``metrics.jsonl``, oldest first."""

WINDOW = 10
"""Records that a verdict is a mean of: one bad batch is none."""
LOW_STD = 0.25
"""Standard deviation × √d (1 is well spread, 0 is one point) below which a collapse is complete."""
LOW_RANK = 6.0
"""Effective rank below which only a few dimensions are left."""
THROWN = 0.02
"""Change of the weights' length a step, as a part of it, from which on steps are too large."""
LONGER = 2.0
"""Times that the weights may have become longer or shorter by steps that were too large."""
MOVED = 3.5
"""Standard errors by which the embeddings must have moved since the start."""
SETTLED = 40
"""Steps at full learning rate after which they must have."""
FEW = 8
"""Pictures seen together below which a step knows too little."""
SAFE = 1.3
"""Times that a run must stay clear of every kind of collapse for its state to be one to go back to."""


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """A change of settings that may help."""

    change: str
    """In words; by which it is known whether it was tried."""
    settings: Mapping[str, Any]
    """By their names, as ``with_settings`` takes them; with ``method``, its own among them."""
    now: str
    """What they change."""

    @property
    def told(self) -> str:
        """The change with its flags, and what there is now."""
        return f"{self.change}: {shlex.join(flags(self.settings))} ({self.now})"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the guard finds."""

    state: State
    evidence: tuple[str, ...]
    """Clauses with numbers."""
    advice: tuple[str, ...] = ()
    """What to try, in order."""
    epoch: float = 0.0
    """When it was found."""
    clear: float = 0.0
    """Times that the run stays clear of the nearest threshold of a collapse; 1 is on it, and 0 where it is unknown."""

    @property
    def safe(self) -> bool:
        """Whether this is a state to go back to: one on its way into a collapse is not."""
        return self.state == "healthy" and self.clear >= SAFE

    @property
    def collapsed(self) -> bool:
        """Whether to go on is a waste: what ``--on-collapse stop`` and ``recover`` act on."""
        return self.state in ("dimensional collapse", "complete collapse", "diverging")

    @property
    def told(self) -> str:
        """Everything in one line."""
        listed = "; ".join(f"({number}) {advice}" for number, advice in enumerate(self.advice, start=1))
        found = f"{SAID[self.state]}: {'; '.join(self.evidence)}."
        return f"{found} Try, one at a time: {listed}." if listed else found


SAID: dict[State, str] = {
    "healthy": "This run looks healthy",
    "not learning": "This run is not learning",
    "data-starved": "This run is starved of data",
    "dimensional collapse": "This run is in dimensional collapse",
    "complete collapse": "This run is in complete collapse",
    "diverging": "This run is diverging",
}


def judge(records: Records, config: RunConfig, *, processes: int = 1) -> Verdict:
    """Judge a run by its records so far.

    Args:
        records: the metric records, oldest first, that are ``comparable``.
        config: the run's configuration, whose values the advice names.
        processes: that share a batch: embeddings are those of one of them.

    Returns:
        The gravest state that the last records show; healthy where there are too few to tell.
    """
    if len(records) < WINDOW:
        return Verdict(state="healthy", evidence=(f"{len(records)} records are too few to tell otherwise",))
    look = Look(records, config, config.train.batch_size // (processes * config.train.accumulate))
    for state, sign in SIGNS:
        if evidence := sign(look):
            advice = _advice(state, config, look.epoch)
            return Verdict(state=state, evidence=evidence, advice=advice, epoch=look.epoch)
    spread = (
        f"std × √d {look.now('embedding_std'):.2f} (1 is well spread, 0 is collapse)",
        f"the embeddings fill {look.now('effective_rank'):.1f} of {look.most_dimensions} dimensions (at the start "
        f"{look.start('effective_rank'):.1f})",
    )
    return Verdict(state="healthy", evidence=spread, epoch=look.epoch, clear=look.clear)


def comparable(records: Records, begun: int) -> list[Mapping[str, Any]]:
    """Leave out what cannot be judged with the last records: another method's, and those of a version that knew less.

    Args:
        records: all of a run, oldest first.
        begun: step at which its present method began.
    """
    return [record for record in records if record["step"] >= begun and "health" in record]


class Look:
    """The records as the signs look at them. What was found at each but the last is in it (``health``).

    Args:
        records: of one method, oldest first, ``WINDOW`` or more.
        config: of the run.
        pictures: whose embeddings a record was measured on.
    """

    def __init__(self, records: Records, config: RunConfig, pictures: int) -> None:
        self.records, self.config, self.pictures = records, config, pictures
        self.epoch, self.step = float(records[-1]["epoch"]), int(records[-1]["step"])

    def now(self, key: str) -> float:
        """Mean over the last records."""
        return _mean([record[key] for record in self.records[-WINDOW:]])

    def start(self, key: str) -> float:
        """Mean over the first records."""
        return _mean([record[key] for record in self.records[:WINDOW]])

    def was(self, state: State) -> bool:
        """Whether the run was found to be that before."""
        return any(record.get("health") == state for record in self.records)

    @property
    def most_dimensions(self) -> int:
        """Centred, n embeddings fill n - 1 dimensions at most."""
        return self.pictures - 1

    @property
    def low_rank(self) -> float:
        """Effective rank below which only a few dimensions are left: the fewer, the smaller the batch."""
        return min(LOW_RANK, self.most_dimensions / 4)

    @property
    def throw(self) -> float:
        """Change of the weights' length a step, as a part of it: the mean over the last records."""
        return _mean(
            [
                abs(math.log(after["weight_norm"] / before["weight_norm"])) / (after["step"] - before["step"])
                for before, after in pairwise(self.records[-WINDOW - 1 :])
            ]
        )

    @property
    def longer(self) -> float:
        """Length of the weights over that at the start."""
        return float(self.now("weight_norm") / self.records[0]["weight_norm"])

    @property
    def full_rate(self) -> float:
        """Steps since the warm-up."""
        return self.step + 1 - self.config.optim.warmup_epochs * (self.step + 1) / self.epoch

    @property
    def moved(self) -> float:
        """How far the embeddings lie from how they lay at the start: standard errors, of what has moved farthest."""
        return max(self._moved(key) for key in ("embedding_std", "effective_rank", "alignment", "uniformity"))

    def _moved(self, key: str) -> float:
        # What is noise, successive records tell: a trend is none.
        noise = _mean([(after[key] - before[key]) ** 2 / 2 for before, after in pairwise(self.records[-WINDOW:])])
        error = math.sqrt(2 * noise / WINDOW)
        return abs(self.now(key) - self.start(key)) / error if error else 0.0

    @property
    def clear(self) -> float:
        """Times that the run stays clear of the nearest threshold of a collapse."""
        spread = min(self.now("embedding_std") / LOW_STD, self.now("effective_rank") / self.low_rank)
        return min(spread, THROWN / self.throw) if self.throw else spread


def _diverging(look: Look) -> tuple[str, ...]:
    damage = _complete(look) or _dimensional(look)
    if look.throw >= THROWN:
        found = [f"each step changes the length of the weights by {look.throw:.1%}, and {THROWN:.0%} is too much"]
    elif (damage or abs(math.log(look.longer)) > math.log(LONGER)) and look.was("diverging"):
        found = ["steps were too large, and what they did has stayed"]
    else:
        return ()
    found.append(f"the weights are {look.longer:.2g} times as long as at the start")
    loss, before = look.now("loss"), look.records[0]["loss"]
    if look.config.method.losses_compare and loss > before:
        found.append(f"the loss has risen from {before:.3g} to {loss:.3g}")
    return (*found, *damage)


def _complete(look: Look) -> tuple[str, ...]:
    std = look.now("embedding_std")
    if std >= LOW_STD:
        return ()
    return (
        f"the embeddings hardly differ (std × √d {std:.2f}; 1 is well spread, 0 is collapse)",
        f"uniformity is {look.now('uniformity'):.2f} (near -4 is good, 0 is collapse)",
    )


def _dimensional(look: Look) -> tuple[str, ...]:
    rank = look.now("effective_rank")
    if rank >= look.low_rank:
        return ()
    return (
        f"the embeddings fill {rank:.1f} of the {look.most_dimensions} dimensions that a batch can show (at the start "
        f"{look.start('effective_rank'):.1f})",
    )


def _starved(look: Look) -> tuple[str, ...]:
    if look.pictures >= FEW:
        return ()
    return (
        f"a step sees {look.pictures} pictures together, too few to tell what pictures have in common from what sets "
        "them apart",
    )


def _still(look: Look) -> tuple[str, ...]:
    if look.full_rate < SETTLED or look.moved >= MOVED:
        return ()
    return (
        f"after {look.step + 1} steps the embeddings lie as they did at the start, but for chance ({look.moved:.1f} "
        f"standard errors)",
        f"two views of a picture are {look.now('alignment'):.2f} apart (at the start {look.start('alignment'):.2f}; "
        "unrelated pictures are 2 apart)",
        f"the learning rate is {look.now('lr'):.2g}",
    )


SIGNS: tuple[tuple[State, Callable[[Look], tuple[str, ...]]], ...] = (
    ("diverging", _diverging),
    ("complete collapse", _complete),
    ("dimensional collapse", _dimensional),
    ("data-starved", _starved),
    ("not learning", _still),
)
"""The gravest first."""


def remedies(verdict: Verdict, config: RunConfig) -> list[Remedy]:
    """List the changes that may help, in the order in which to try them; each by itself, on top of those tried before.

    Args:
        verdict: what is wrong.
        config: that the run has now.
    """
    return _remedies(verdict.state, config, verdict.epoch)


def _remedies(state: State, config: RunConfig, epoch: float) -> list[Remedy]:
    if state == "healthy":
        return []
    if state == "data-starved":
        now = f"now {config.train.batch_size}"
        return [Remedy(change="larger batches", settings={"batch_size": ENOUGH}, now=now)]
    if state == "not learning":
        return [_rate(config, "a higher learning rate", 10), _another(config)]
    if state == "diverging":
        # By its value: a tenth may be tried again and again.
        tenth = _rounded(config.optim.lr / 10)
        return [
            _rate(config, f"a tenth of the learning rate, {tenth:g}", 0.1),
            _warmup(config, epoch),
            _another(config),
        ]
    lower = _rate(config, "a lower learning rate", 0.25)
    return [lower, _warmup(config, epoch), *_stronger(config.views), _another(config)]


ENOUGH = 64
"""Pictures a batch that methods without negatives were shown to work from."""


def _rate(config: RunConfig, change: str, factor: float) -> Remedy:
    optim = config.optim
    now = (
        f"now {optim.lr:g}: a peak of {optim.peak_lr(config.train.batch_size):.3g}; weight decay {optim.weight_decay:g}"
    )
    return Remedy(change=change, settings={"lr": _rounded(optim.lr * factor)}, now=now)


def _warmup(config: RunConfig, epoch: float) -> Remedy:
    """Beyond the point at which it went wrong, so that a run that goes back feels it."""
    longer = _rounded(max(2 * config.optim.warmup_epochs, epoch + config.train.epochs / 10))
    now = f"now {config.optim.warmup_epochs:g} epochs"
    return Remedy(change="a longer warm-up", settings={"warmup_epochs": longer}, now=now)


def _stronger(views: ViewsConfig) -> list[Remedy]:
    """Twice as strong, within what SimCLR (arXiv 2002.05709) calls strong."""
    strongest = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}
    settings: dict[str, Any] = {
        name: min(most, _rounded(2 * getattr(views, name))) for name, most in strongest.items() if getattr(views, name)
    }
    if views.crop == "resized":
        settings["crop_scale"] = (max(0.08, _rounded(views.crop_scale[0] / 2)), views.crop_scale[1])
    settings = {name: value for name, value in settings.items() if value != getattr(views, name)}
    now = (
        f"now crops of {views.crop_scale[0]:g} to {views.crop_scale[1]:g} of a picture, jitter with probability "
        f"{views.jitter:g} at strengths {views.brightness:g}/{views.contrast:g}/{views.saturation:g}/{views.hue:g}, "
        f"grayscale {views.grayscale:g}, blur {views.blur:g}"
    )
    return [Remedy(change="stronger views", settings=settings, now=now)] if settings else []


def _another(config: RunConfig) -> Remedy:
    """A method whose loss keeps every channel varying, no wider than this run's, with rates that suit it."""
    width = getattr(config.method, "projector_width", 2048)
    other = "barlow" if config.method.name == "vicreg" else "vicreg"
    settings = {"method": other, "projector_width": width, "projector_dim": width}
    return Remedy(
        change="another method",
        settings=settings | {"optimizer": "adamw", "lr": 0.001, "weight_decay": 0.01},
        now=f"now {config.method.name}; see `diptych methods`",
    )


def _advice(state: State, config: RunConfig, epoch: float) -> tuple[str, ...]:
    words = [remedy.told for remedy in _remedies(state, config, epoch)]
    if state == "data-starved":
        words.append("more pictures, where there are fewer than that")
    else:
        words.append(f"another backbone or heads (now {config.backbone}, {config.method.heads})")
    return tuple(words)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _rounded(value: float) -> float:
    """Three digits: a value that a person would type."""
    return float(f"{value:.3g}")
