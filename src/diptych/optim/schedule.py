"""Learning rate as a function of the step, with no state: resuming needs nothing but the step."""

import math


def warmup_cosine(step: int, *, steps: int, warmup_steps: int, peak: float) -> float:
    """Linear warm-up, then half a cosine to zero (SGDR without restarts, arXiv 1608.03983).

    Args:
        step: 0-based step about to be taken.
        steps: in the whole run.
        warmup_steps: of these, the first ones that rise linearly; the last of them is at ``peak``.
        peak: the highest rate.

    Returns:
        A rate in 0..peak.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))
