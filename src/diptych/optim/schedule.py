"""What changes along a run, as functions of where it stands, with no state: resuming needs nothing but the step."""

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


def half_cosine(start: float, end: float, progress: float) -> float:
    """Return what goes from ``start`` to ``end`` along half a cosine, at ``progress`` 0..1 (BYOL, arXiv 2006.07733)."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))
