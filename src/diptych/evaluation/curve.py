"""What trials say together: for each budget of labels means, gains, a verdict, and the labels that were saved."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from diptych.evaluation.numbers.headline import Headline
from diptych.evaluation.numbers.metrics import macro_average_precision
from diptych.evaluation.numbers.resampling import Resampled
from diptych.evaluation.numbers.scores import Score, per_picture
from diptych.evaluation.numbers.statistics import (
    Estimate,
    Gain,
    bootstrap_gain,
    bootstrap_metric,
    labels_interval,
    mean_interval,
    paired_gain,
    resampled_metric,
)
from diptych.evaluation.protocols import Measured, Plan, Trials
from diptych.evaluation.verdict import Verdict, decide, level_for

OURS = "pretrained"


@dataclass(frozen=True, kw_only=True)
class Saved:
    """Labels that pretraining saves: what the other contender would need to be as accurate."""

    against: str
    """The other contender."""
    labels: float | None
    """That it would need; None where not even the most that were measured suffice."""
    low: float | None
    high: float | None
    """Between these it does not differ clearly; None: more than the most that were measured."""
    factor: float | None
    """These, as a multiple of the labels that were used with pretraining."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """All that was found with one budget of labels."""

    headline: Headline
    """What the numbers are."""
    told: str
    """The budget as it was typed."""
    labels: int
    """Pictures whose labels were used, with the first seed."""
    share: float
    """Of all training pictures, 0..1."""
    estimates: dict[str, dict[str, Estimate]]
    """Contender → probe → mean of the headline over the seeds, with its 95 % interval."""
    seeds: dict[str, dict[str, list[float]]]
    """Contender → probe → the headline with each seed."""
    gains: dict[str, dict[str, Gain]]
    """Other contender → probe → ``pretrained`` minus it, in points or the headline's own unit."""
    before: dict[str, str]
    """Probe → the contender that the verdict compares with."""
    saved: dict[str, Saved]
    """Probe → the labels saved against that contender; where there are several budgets."""
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        contenders = {
            key: {
                probe: {self.headline.key: e.value, "ci95": [e.low, e.high], "seeds": self.seeds[key][probe]}
                for probe, e in found.items()
            }
            for key, found in self.estimates.items()
        }
        return {
            "labels": self.told,
            "pictures": self.labels,
            "share": self.share,
            "contenders": contenders,
            "gains": {key: {probe: g.to_dict() for probe, g in found.items()} for key, found in self.gains.items()},
            "compared_with": self.before,
            "saved": {probe: asdict(saved) for probe, saved in self.saved.items()},
            "verdict": self.verdict.to_dict(),
        }


def before_of(trials: Trials) -> dict[str, str]:
    """Return, probe by probe, who the verdict compares with: the network as training began, trained as it was.

    Under fine-tuning that is the same network trained from scratch, or from the weights that training began with.
    """
    found: dict[str, str] = {}
    for probe in trials[OURS]:
        for key in ("initial", "scratch" if probe == "finetune" else "random"):
            if probe in trials.get(key, {}):
                found.setdefault(probe, key)
    return found


def points_of(
    measured: Measured,
    plan: Plan,
    total: int,
    headline: Headline,
    *,
    groups: Tensor | None = None,
    unseen: bool,
    init_from: str | None,
) -> list[Point]:
    """Sum up every budget.

    Args:
        measured: what was found.
        plan: what was asked.
        total: training pictures in all.
        headline: what the scores are compared by.
        groups: of the test pictures, where some belong together: see ``resampling.resample``.
        unseen: the backbone did not see the test pictures, not even without their labels.
        init_from: where the weights came from that training began with; None where they were random.
    """
    judge = _Judge(headline, groups)
    estimates = [
        {key: {probe: judge.estimate(s) for probe, s in found.items()} for key, found in trials.items()}
        for trials in measured.trials
    ]
    counts = [len(rows[0]) for rows in measured.rows]
    points = []
    for place, (budget, trials) in enumerate(zip(plan.budgets, measured.trials, strict=True)):
        before = before_of(trials)
        level = level_for(len(before))
        means = {key: {probe: e.value for probe, e in own.items()} for key, own in estimates[place].items()}
        gains = _gains(trials, before, level, judge)
        tested = len(trials[OURS][next(iter(before))][0].truth)
        points.append(
            Point(
                headline=headline,
                told=budget.told,
                labels=counts[place],
                share=counts[place] / total,
                estimates=estimates[place],
                seeds={k: {p: [s.value for s in found] for p, found in own.items()} for k, own in trials.items()},
                gains=gains,
                before=before,
                saved={
                    probe: _saved(key, probe, measured.trials, counts, place, judge)
                    for probe, key in before.items()
                    if len(counts) > 1
                },
                verdict=decide(
                    {probe: gains[key][probe] for probe, key in before.items()},
                    means,
                    before,
                    tested,
                    headline,
                    unseen=unseen,
                    init_from=init_from,
                    labels=None if len(counts) == 1 and budget.share == 1 else f"{budget.told} of the labels",
                ),
            )
        )
    return points


def _gains(trials: Trials, before: Mapping[str, str], level: float, judge: "_Judge") -> dict[str, dict[str, Gain]]:
    """Compare with every other contender; those that the verdict rests on have the level that it needs."""
    gains: dict[str, dict[str, Gain]] = {}
    for key, found in trials.items():
        for probe, scores in found.items() if key != OURS else ():
            if probe in trials[OURS]:
                asked = level if before.get(probe) == key else 0.95
                gains.setdefault(key, {})[probe] = judge.gain(trials[OURS][probe], scores, asked)
    return gains


class _Judge:
    """Estimates and compares scores.

    A headline that is a mean over pictures has their interval; any other is measured on pictures drawn anew, once for
    each contender, as that takes longest: all are measured on the same draws, which is what pairs them.

    Args:
        headline: what scores are compared by.
        groups: of the test pictures, or None.
    """

    def __init__(self, headline: Headline, groups: Tensor | None) -> None:
        self._headline, self._groups = headline, groups
        self._drawn: dict[tuple[int, ...], Resampled] = {}

    def estimate(self, scores: Sequence[Score]) -> Estimate:
        """Return the headline, and its interval within what it can be."""
        pictures, lowest = per_picture(scores), self._headline.lowest
        found = (
            bootstrap_metric(self._resampled(scores))
            if pictures is None
            else mean_interval(pictures, groups=self._groups)
        )
        low = found.low if lowest is None else max(lowest, found.low)
        return replace(found, low=low, high=min(1.0, found.high))  # draws may lie beyond what a number can be

    def gain(self, ours: Sequence[Score], theirs: Sequence[Score], level: float) -> Gain:
        """Compare two contenders under one probe."""
        first, second, scale = per_picture(ours), per_picture(theirs), self._headline.scale
        if first is None or second is None:
            return bootstrap_gain(self._resampled(ours), self._resampled(theirs), level, scale)
        return paired_gain(first, second, level, scale=scale, groups=self._groups)

    def _resampled(self, scores: Sequence[Score]) -> Resampled:
        key = tuple(map(id, scores))  # trials outlive the judge, so that no other score can have this place

        def metric(weights: Tensor) -> Tensor:
            return torch.stack([macro_average_precision(s.answers, s.truth, weights) for s in scores], dim=1)

        if key not in self._drawn:
            self._drawn[key] = resampled_metric(metric, len(scores[0].truth), groups=self._groups)
        return self._drawn[key]


def _saved(key: str, probe: str, trials: Sequence[Trials], counts: Sequence[int], place: int, judge: _Judge) -> Saved:
    """Compare what pretraining makes of one budget with what the other contender makes of every one."""
    ours = trials[place][OURS][probe]
    gains = [(float(n), judge.gain(ours, own[key][probe], 0.95)) for n, own in zip(counts, trials, strict=True)]
    needed = labels_interval(gains)
    return Saved(
        against=key,
        labels=needed.labels,
        low=needed.low,
        high=needed.high,
        factor=None if needed.labels is None else needed.labels / counts[place],
    )
