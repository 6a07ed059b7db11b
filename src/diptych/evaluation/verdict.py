"""The verdict: a rule that was fixed before any result was seen, and a sentence that a person can quote.

For each probe the accuracy of the pretrained backbone (of several labels the mean average precision, of quantities R²)
is compared with that of the same network before training, on the same test pictures: untrained, or with the weights
that training began with (``--init-from``); under fine-tuning both are trained on the same labels. Two probes give two
chances to be lucky, so each interval has 97.5 % (Bonferroni): together they have at least 95 %. Three have 98.3 % each,
one alone 95 %.

helped: an interval lies wholly above 0 and none wholly below. hurt: the reverse. Everything else, contradicting probes
included, is no evidence.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from diptych.evaluation.numbers.headline import TOP1, Headline
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
    """Pretrained - the same network before training, percentage points; of quantities R² itself."""
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
    values: Mapping[str, Mapping[str, float]],
    before: Mapping[str, str],
    pictures: int,
    headline: Headline = TOP1,
    *,
    unseen: bool = True,
    init_from: str | None = None,
    labels: str | None = None,
) -> Verdict:
    """Apply the rule.

    Args:
        differences: per probe, pretrained - the contender that it is compared with.
        values: contender → probe → accuracy 0..1, or another headline; ``pixels`` may be absent.
        before: probe → the contender that is compared with: ``random``, ``initial`` or ``scratch``.
        pictures: test pictures.
        headline: what the values are.
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
        d, was = differences[probe], _was(before[probe], probe, init_from)
        ours, theirs = (headline.written(values[contender][probe]) for contender in ("pretrained", before[probe]))
        return (
            f"{PROBE_NAMES[probe]} {headline.prefix}{ours} against {theirs} for {was}, "
            f"{headline.signed(d.points)}{headline.unit} ({d.level * 100:.3g} % interval {headline.signed(d.low)} to "
            f"{headline.signed(d.high)}; {basis})"
        )

    opening = _OPENINGS[outcome]
    if labels:
        opening = f"With {labels}, {opening[0].lower()}{opening[1:]}"
    if above and below:
        told = "; ".join(map(compared, differences))
        sentence = f"{opening}, because the probes disagree: {told}"
        by = f" by {PROBE_NAMES[quoted]}"
    else:
        sentence, by = f"{opening}: {compared(quoted)}", ""
    pixels, mine = values.get("pixels", {}), values["pretrained"]
    if quoted in pixels:
        reached = f"{headline.written(pixels[quoted])}{by}"
        if pixels[quoted] >= mine[quoted]:
            sentence += f"; but raw pixels alone reach {reached}, so this backbone is not yet worth using here"
        else:
            sentence += f"; raw pixels reach {reached}"
        for probe in (probe for probe in differences if probe in pixels and probe != quoted):
            if pixels[probe] >= mine[probe] and pixels[quoted] < mine[quoted]:
                ours, theirs = (headline.written(found[probe]) for found in (mine, pixels))
                sentence += f", but {theirs} by {PROBE_NAMES[probe]}, where this backbone reaches {ours}"
    sentence += "."
    return Verdict(
        outcome=outcome, sentence=sentence, probe=quoted, points=d.points, interval=(d.low, d.high), level=d.level
    )


def _clearness(d: Gain) -> float:
    return abs(d.points) / ((d.high - d.low) or math.inf)  # equal answers everywhere leave nothing to be unsure of


def _was(contender: str, probe: str, init_from: str | None) -> str:
    """Say what the other network is."""
    if contender == "scratch":
        return "the same network trained from scratch on the same labels"
    if contender == "random":
        return "the same network untrained"
    how = ", fine-tuned on the same labels" if probe == "finetune" else ""
    return f"the same network before training on these pictures ({init_from}){how}"
