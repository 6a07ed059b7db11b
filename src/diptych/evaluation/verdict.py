"""The verdict: a rule that was fixed before any result was seen, and a sentence that a person can quote.

For each probe the accuracy of the pretrained backbone is compared with that of the same network before training, on the
same test pictures: untrained, or with the weights that training began with (``--init-from``); under fine-tuning both
are trained on the same labels. Two probes give two chances to be lucky, so each interval has 97.5 % (Bonferroni):
together they have at least 95 %. Three have 98.3 % each, one alone 95 %.

helped: an interval lies wholly above 0 and none wholly below. hurt: the reverse. Everything else, contradicting probes
included, is no evidence.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from diptych.evaluation.numbers.statistics import Gain

Outcome = Literal["helped", "no evidence", "hurt"]

PROBE_NAMES = {"knn": "kNN", "linear": "linear probe", "finetune": "fine-tuning"}

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
    differences: Mapping[str, Gain],
    top1: Mapping[str, Mapping[str, float]],
    before: Mapping[str, str],
    pictures: int,
    *,
    unseen: bool = True,
    init_from: str | None = None,
    labels: str | None = None,
) -> Verdict:
    """Apply the rule.

    Args:
        differences: per probe, pretrained - the contender that it is compared with.
        top1: contender → probe → accuracy 0..1; ``pixels`` may be absent.
        before: probe → the contender that is compared with: ``random``, ``initial`` or ``scratch``.
        pictures: test pictures.
        unseen: the backbone did not see the test pictures, not even without their labels.
        init_from: where the weights of ``initial`` came from.
        labels: the budget of labels, for people; None where all were used and no other budget.
    """
    above = [probe for probe, d in differences.items() if d.low > 0]
    below = [probe for probe, d in differences.items() if d.high < 0]
    outcome: Outcome = "no evidence" if bool(above) == bool(below) else "helped" if above else "hurt"
    quoted = max(above + below or differences, key=lambda probe: _clearness(differences[probe]))
    d = differences[quoted]
    basis = f"{pictures:,} {'unseen' if unseen else 'test'} pictures"

    def compared(probe: str) -> str:
        ours, theirs = (top1[contender][probe] for contender in ("pretrained", before[probe]))
        return _compare(probe, differences[probe], ours, theirs, _was(before[probe], probe, init_from), basis)

    opening = _OPENINGS[outcome]
    if labels:
        opening = f"With {labels}, {opening[0].lower()}{opening[1:]}"
    if above and below:
        told = "; ".join(map(compared, differences))
        sentence = f"{opening}, because the probes disagree: {told}"
        by = f" by {PROBE_NAMES[quoted]}"
    else:
        sentence, by = f"{opening}: {compared(quoted)}", ""
    pixels = top1.get("pixels", {})
    if quoted in pixels:
        sentence += _pixels(top1["pretrained"][quoted], pixels[quoted], by)
        for probe in (probe for probe in differences if probe in pixels and probe != quoted):
            if pixels[probe] >= top1["pretrained"][probe] and pixels[quoted] < top1["pretrained"][quoted]:
                ours, theirs = (_percent(top1[contender][probe]) for contender in ("pretrained", "pixels"))
                sentence += f", but {theirs} by {PROBE_NAMES[probe]}, where this backbone reaches {ours}"
    sentence += "."
    return Verdict(
        outcome=outcome, sentence=sentence, probe=quoted, points=d.points, interval=(d.low, d.high), level=d.level
    )


def _clearness(d: Gain) -> float:
    return abs(d.points) / (d.high - d.low)


def _was(contender: str, probe: str, init_from: str | None) -> str:
    """Say what the other network is."""
    if contender == "scratch":
        return "the same network trained from scratch on the same labels"
    if contender == "random":
        return "the same network untrained"
    how = ", fine-tuned on the same labels" if probe == "finetune" else ""
    return f"the same network before training on these pictures ({init_from}){how}"


def _compare(probe: str, d: Gain, ours: float, theirs: float, was: str, basis: str) -> str:
    return (
        f"{PROBE_NAMES[probe]} {_percent(ours)} against {_percent(theirs)} for {was}, {signed(d.points)} points "
        f"({d.level * 100:.3g} % interval {signed(d.low)} to {signed(d.high)}; {basis})"
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
