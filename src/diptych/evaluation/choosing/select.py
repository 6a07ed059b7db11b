"""Choose among checkpoints and runs without labels: all of them embed the same pictures, and a metric ranks them.

Nothing is written, neither into the run folders nor elsewhere.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from diptych.errors import ConfigError, RunFolderError, printable, suggest
from diptych.evaluation.choosing.candidates import Candidate, Origin, candidates, read_origin
from diptych.evaluation.choosing.sample import LEAST, Sample, read_sample, shared_views, view_features
from diptych.evaluation.choosing.unlabelled import METRICS, Values, clid, measure
from diptych.evaluation.features import backbone_features
from diptych.progress import Terminal
from diptych.runs import SCHEMA_VERSION
from diptych.views.config import ViewsConfig

DEFAULT = "alignment"
"""The metric that went best with the linear probe in ``benchmarks/selection.py``; see docs/results.md, section 9."""
MEASURED = {
    "rankme": ("-0.04 (-0.61 to +0.52)", "-0.30 (-0.65 to +0.10)", 12.4, 2.4),
    "alpha_req": ("-0.22 (-0.74 to +0.37)", "-0.62 (-0.85 to -0.30)", 12.8, 2.8),
    "lidar": ("-0.42 (-0.91 to +0.16)", "-0.77 (-1.00 to -0.35)", 12.8, 2.7),
    "clid": ("-0.60 (-0.82 to -0.29)", "-0.18 (-0.60 to +0.30)", 12.9, 1.7),
    "learnability": ("-0.26 (-0.65 to +0.23)", "+0.13 (-0.20 to +0.48)", 14.4, 0.7),
    "dimension": ("-0.16 (-0.68 to +0.41)", "-0.42 (-0.76 to +0.01)", 12.9, 2.4),
    "alignment": ("+0.32 (-0.17 to +0.78)", "+0.52 (+0.07 to +0.90)", 0.0, 0.4),
    "uniformity": ("+0.43 (-0.05 to +0.70)", "+0.38 (+0.05 to +0.69)", 8.6, 1.1),
}
"""Rank correlation with the linear probe over all checkpoints and along a run, with 95 % intervals; points of the probe
that the choice cost, among all and along a run."""
TRUST = {
    metric: f"over 42 checkpoints of 21 short runs on CIFAR-10 its rank correlation with a linear probe was {whole}, "
    f"and along a run {along}; its choices were {lost:.1f} points below the best of all, {lost_along:.1f} below the "
    "best of their run"
    for metric, (whole, along, lost, lost_along) in MEASURED.items()
}
"""How far each metric can be trusted, for people."""
BETTER = {"higher": "a higher value", "lower": "a lower value", "near 1": "a value nearer to 1"}


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One checkpoint, or the backbone that a run left behind."""

    checkpoint: str
    """``step-000390``, or ``backbone``."""
    step: int | None
    finished: bool
    """Whether it is what ``diptych.load`` gives of this run."""
    features: int
    """Values in a feature vector."""
    values: Values
    """Of every metric."""
    rank: int
    """Among those of its run, 1 for the best."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """What one run offers."""

    run: str
    """The folder as the user named it."""
    method: str
    backbone: str
    checkpoints: tuple[Scored, ...]
    """In the order of training."""
    rank: int
    """Among the runs, by the best that each offers; 1 for the best."""

    @property
    def best(self) -> Scored:
        """The checkpoint that ranks first."""
        return min(self.checkpoints, key=lambda scored: scored.rank)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which checkpoint of which run, by which metric, and how far that can be trusted."""

    metric: str
    """A key of ``METRICS``."""
    trust: str
    run: str
    checkpoint: str
    sentence: str
    """For people."""
    notes: tuple[str, ...]
    """What else is to be known, a sentence each."""
    runs: tuple[Ranking, ...]
    """In the order in which they were named."""
    data: str
    fingerprint: str
    """Of all pictures that ``data`` names."""
    pictures: int
    """How many were embedded."""
    views: str
    """How the views were made that LiDAR and alignment compare, for people."""
    seed: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


def select(
    runs: Sequence[str | Path],
    *,
    metric: str | None = None,
    data: str | None = None,
    data_dir: str | None = None,
    pictures: int = 2000,
    seed: int = 0,
    device: str = "auto",
    terminal: Terminal | None = None,
) -> Selection:
    """Rank the checkpoints of each run, and the runs by the best of theirs, without reading a label.

    Args:
        runs: one run folder or more; a run that is not over offers the checkpoints that it has.
        metric: a key of ``METRICS``, ``DEFAULT`` if None; all of them are computed.
        data: pictures to choose by, as for ``pretrain``; those that the runs learned from if None.
        data_dir: where the archive of a named data set lies.
        pictures: how many to draw.
        seed: of the draw, of the views, and of the clusters.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        terminal: where to speak; nowhere if None.

    Raises:
        UserError: the runs, the pictures or the arguments cannot be used as asked.
    """
    started = time.monotonic()
    terminal = terminal or Terminal(quiet=True)
    metric = metric or DEFAULT
    _refuse(runs, metric, pictures, seed)
    origins = [read_origin(run) for run in runs]
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(printable(text))
        terminal.say(text)

    sample = read_sample(origins, data, data_dir, pictures, seed, terminal, note)
    views, told = shared_views(origins)
    offered = [_scored(origin, sample, views, device, terminal, note) for origin in origins]
    rankings = _ranked([str(run) for run in runs], origins, _with_clid(offered), metric)
    for ranking in rankings:
        _remark(ranking, note)
    if len({scored.features for ranking in rankings for scored in ranking.checkpoints}) > 1:
        note("feature vectors of different lengths are compared, which RankMe, LiDAR and α-ReQ depend on")
    chosen = min(rankings, key=lambda ranking: ranking.rank)
    return Selection(
        metric=metric,
        trust=TRUST[metric],
        run=chosen.run,
        checkpoint=chosen.best.checkpoint,
        sentence=_sentence(rankings, metric),
        notes=tuple(notes),
        runs=tuple(rankings),
        data=sample.data,
        fingerprint=sample.fingerprint,
        pictures=sample.count,
        views=told,
        seed=seed,
        seconds=round(time.monotonic() - started, 2),
    )


def _refuse(runs: Sequence[str | Path], metric: str, pictures: int, seed: int) -> None:
    """Refuse arguments out of range."""
    if not runs:
        raise ConfigError("say which run to choose from: type `diptych select RUN`")
    if metric not in METRICS:
        raise ConfigError(f"unknown metric '{metric}'{suggest(metric, METRICS)}")
    if pictures < LEAST:
        raise ConfigError(f"--pictures must be {LEAST} or more, not {pictures}")
    if seed < 0:
        raise ConfigError(f"--seed must be 0 or more, not {seed}")
    seen: dict[Path, str | Path] = {}
    for run in runs:
        if (place := Path(run).resolve()) in seen:
            raise RunFolderError(f"{run} is the same folder as {seen[place]}: name each run once")
        seen[place] = run


def _scored(
    origin: Origin, sample: Sample, views: ViewsConfig, device: str, terminal: Terminal, note: Callable[[str], None]
) -> list[Scored]:
    """Measure what a run offers, save CLID and the ranks."""
    found, left_out = [], ""

    def leave_out(why: str) -> None:
        nonlocal left_out
        left_out = why
        note(why)

    for candidate in candidates(origin, device, leave_out):
        try:
            values = _measured(candidate, sample, origin, views)
        except RunFolderError as error:  # features that are not finite: nothing to choose, but the others may be
            leave_out(f"{candidate.name} of {origin.folder.path} is left out: {error}")
            continue
        terminal.say(f"{origin.folder.path} {candidate.name}: " + ", ".join(_told(name, values) for name in values))
        found.append(
            Scored(
                checkpoint=candidate.name,
                step=candidate.step,
                finished=candidate.finished,
                features=candidate.backbone.num_features,
                values=values,
                rank=0,
            )
        )
    if not found:
        raise RunFolderError(f"{origin.folder.path} offers nothing that can be used: leave it out ({left_out})")
    return found


def _measured(candidate: Candidate, sample: Sample, origin: Origin, views: ViewsConfig) -> Values:
    images = sample.images[origin.format]
    features = backbone_features(candidate.backbone, images, torch.empty(0)).values
    return measure(features, view_features(candidate.backbone, images, views, sample.seed), sample.seed)


def _with_clid(offered: Sequence[Sequence[Scored]]) -> list[list[Scored]]:
    """Add CLID, which is known once all are."""
    flat = [scored.values for found in offered for scored in found]
    parts = ([values[name] for values in flat] for name in ("learnability", "dimension"))
    added = iter(clid(*parts))
    order = list(METRICS)

    def completed(values: Values) -> Values:
        whole = values | {"clid": next(added)}
        return {name: whole[name] for name in order}

    return [[replace(scored, values=completed(scored.values)) for scored in found] for found in offered]


def _ranked(
    runs: Sequence[str], origins: Sequence[Origin], offered: Sequence[Sequence[Scored]], metric: str
) -> list[Ranking]:
    """Rank within runs, then runs; of two that are equal the later checkpoint and the earlier run come first."""
    if all(scored.values[metric] is None for found in offered for scored in found):
        alone = "compares several, and there is one" if metric == "clid" else "says nothing of these representations"
        raise ConfigError(f"--metric {metric} {alone}: choose another, such as rankme")

    def merit(scored: Scored) -> float:
        return METRICS[metric].merit(scored.values[metric])

    rankings = []
    for run, origin, found in zip(runs, origins, offered, strict=True):
        order = sorted(reversed(range(len(found))), key=lambda place: -merit(found[place]))
        ranked = tuple(replace(scored, rank=order.index(place) + 1) for place, scored in enumerate(found))
        rankings.append(
            Ranking(run=run, method=origin.method, backbone=origin.card.backbone, checkpoints=ranked, rank=0)
        )
    best = sorted(range(len(rankings)), key=lambda place: -merit(rankings[place].best))
    return [replace(ranking, rank=best.index(place) + 1) for place, ranking in enumerate(rankings)]


def _remark(ranking: Ranking, note: Callable[[str], None]) -> None:
    """Say where there was no choice within a run; ``patches`` has no steps and so no checkpoints."""
    if len(ranking.checkpoints) == 1 and ranking.method != "patches":
        note(f"{ranking.run} offers {ranking.best.checkpoint} alone: pretrain with --keep N to keep N checkpoints")


def _sentence(rankings: Sequence[Ranking], metric: str) -> str:
    """Say what was chosen, what comes next, and how far that can be trusted."""
    known = METRICS[metric]
    everything = [(ranking, scored) for ranking in rankings for scored in ranking.checkpoints]
    chosen = min(rankings, key=lambda ranking: ranking.rank)
    sentence = f"{known.title} chooses {_named(chosen, chosen.best)}: {_told(metric, chosen.best.values)}"
    others = [(ranking, scored) for ranking, scored in everything if scored is not chosen.best]
    if not others:
        return f"{sentence}; there is no other."
    ranking, second = max(others, key=lambda pair: known.merit(pair[1].values[metric]))
    name = second.checkpoint if ranking is chosen else _named(ranking, second)
    return (
        f"{sentence}, where {BETTER[known.better]} is better; next of {len(everything)} comes {name} with "
        f"{_told(metric, second.values)}. How far {known.title} can be trusted: {TRUST[metric]}."
    )


def _named(ranking: Ranking, scored: Scored) -> str:
    return f"{scored.checkpoint} of {printable(ranking.run)}"


def _told(metric: str, values: Values) -> str:
    value = values[metric]
    return f"{METRICS[metric].title} {'undefined' if value is None else f'{value:.4g}'}"
