"""The verdict: a rule that was fixed before any result was seen, and a sentence that a person can quote.

For each probe the accuracy of the pretrained backbone is compared with that of the same network before training, on the
same test pictures: untrained, or with the weights that training began with (``--init-from``). Two probes give two
chances to be lucky, so each interval has 97.5 % (Bonferroni): together they have at least 95 %. One probe alone has
95 %.

helped: an interval lies wholly above 0 and none wholly below. hurt: the reverse. Everything else, contradicting probes
included, is no evidence.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from diptych.evaluation.scores import Difference

Outcome = Literal["helped", "no evidence", "hurt"]

PROBE_NAMES = {"knn": "kNN", "linear": "linear probe"}

_OPENINGS: dict[Outcome, str] = {
    "helped": "Pretraining helped",
    "no evidence": "No evidence that pretraining helped or hurt",
    "hurt": "Pretraining hurt",
}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The outcome, and the probe that the sentence quotes."""

    outcome: Outcome
    sentence: str
    probe: str
    points: float
    """Pretrained - the same network before training, percentage points."""
    interval: tuple[float, float]
    level: float

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self) | {"interval": list(self.interval)}


def level_for(probes: int) -> float:
    """Return the coverage of each probe's interval that gives all of them together at least 95 %."""
    return 1 - 0.05 / probes


def decide(
    differences: Mapping[str, Difference],
    top1: Mapping[str, Mapping[str, float]],
    pictures: int,
    unseen: bool = True,
    init_from: str | None = None,
) -> Verdict:
    """Apply the rule.

    Args:
        differences: per probe, pretrained - ``initial`` where there is one, else ``random``.
        top1: contender → probe → accuracy 0..1; ``pixels`` may be absent.
        pictures: test pictures.
        unseen: the backbone did not see the test pictures, not even without their labels.
        init_from: where the weights came from that training began with; None where they were random.
    """
    above = [probe for probe, d in differences.items() if d.low > 0]
    below = [probe for probe, d in differences.items() if d.high < 0]
    outcome: Outcome = "no evidence" if bool(above) == bool(below) else "helped" if above else "hurt"
    quoted = max(above + below or differences, key=lambda probe: _clearness(differences[probe]))
    d = differences[quoted]
    basis = f"{pictures:,} {'unseen' if unseen else 'test'} pictures"
    if above and below:
        told = "; ".join(_compare(probe, differences[probe], top1, basis, init_from) for probe in differences)
        sentence = f"{_OPENINGS[outcome]}, because the probes disagree: {told}"
        by = f" by {PROBE_NAMES[quoted]}"
    else:
        sentence, by = f"{_OPENINGS[outcome]}: {_compare(quoted, d, top1, basis, init_from)}", ""
    if "pixels" in top1:
        sentence += _pixels(top1["pretrained"][quoted], top1["pixels"][quoted], by)
        for probe in differences.keys() - {quoted}:
            if (
                top1["pixels"][probe] >= top1["pretrained"][probe]
                and top1["pixels"][quoted] < top1["pretrained"][quoted]
            ):
                ours, theirs = (_percent(top1[contender][probe]) for contender in ("pretrained", "pixels"))
                sentence += f", but {theirs} by {PROBE_NAMES[probe]}, where this backbone reaches {ours}"
    sentence += "."
    return Verdict(
        outcome=outcome, sentence=sentence, probe=quoted, points=d.points, interval=(d.low, d.high), level=d.level
    )


def _clearness(d: Difference) -> float:
    return abs(d.points) / (d.high - d.low)


def _compare(
    probe: str, d: Difference, top1: Mapping[str, Mapping[str, float]], basis: str, init_from: str | None
) -> str:
    before = "untrained" if init_from is None else f"before training on these pictures ({init_from})"
    ours, theirs = top1["pretrained"][probe], top1["random" if init_from is None else "initial"][probe]
    return (
        f"{PROBE_NAMES[probe]} {_percent(ours)} against {_percent(theirs)} for the same network {before}, "
        f"{signed(d.points)} points ({d.level * 100:g} % interval {signed(d.low)} to {signed(d.high)}; {basis})"
    )


def _pixels(pretrained: float, pixels: float, by: str) -> str:
    if pixels >= pretrained:
        return f"; but raw pixels alone reach {_percent(pixels)}{by}, so this backbone is not yet worth using here"
    return f"; raw pixels reach {_percent(pixels)}{by}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def signed(points: float) -> str:
    """Write points with their sign; it is kept where they round to zero: ``+1.2``, ``-0.3``, ``-0.0``."""
    return f"{points:+.1f}"
