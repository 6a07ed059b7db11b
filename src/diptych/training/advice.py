"""Collapse: how it is told, and what to try, in plain language with the run's own values.

Three areas of advice are the Keras example's: colour distortion and its probabilities; learning rate and schedule; the
architecture of the backbone and the heads. The fourth is another method, whose loss itself forbids collapse.
"""

from collections.abc import Sequence
from typing import Any

from diptych.training.config import RunConfig

LOW_STD = 0.3
"""Standard deviation of the normalised embeddings × √d below which a run is close to collapse (1 is well spread)."""
LOW_RANK = 2.0
"""Effective rank below which the embeddings lie on a line."""
NEGATIVE_COSINE = ("simsiam", "fastsiam")
NEAR_MINUS_ONE = -0.98
"""A negative cosine loss below this leaves almost nothing to learn."""
WINDOW = 10
"""Records looked at: one bad batch is not a collapse."""


def collapse_warning(records: Sequence[dict[str, Any]], config: RunConfig) -> str | None:
    """Return a warning if the last records look like representation collapse, else None.

    Args:
        records: the metric records so far, oldest first.
        config: the run's configuration, whose values the advice names.
    """
    last = records[-WINDOW:]
    if len(last) < WINDOW:
        return None
    loss, std, rank = (_mean(last, key) for key in ("loss", "embedding_std", "effective_rank"))
    signs = []
    if std < LOW_STD:
        signs.append(f"the embeddings hardly differ (std × √d {std:.2f}; 1 is well spread, 0 is collapse)")
    low_rank = min(LOW_RANK, (config.train.batch_size - 1) / 2)  # centred, n embeddings fill n - 1 dimensions at most
    if rank < low_rank:
        signs.append(f"they fill {rank:.1f} dimensions")
    if config.method.name in NEGATIVE_COSINE and loss < NEAR_MINUS_ONE:
        signs.append(f"the loss is {loss:.3f}, and -1 is its minimum")
    # A loss near -1 alone may be an easy data set: it counts beside a low spread only.
    if std >= LOW_STD and rank >= low_rank:
        return None
    return f"This run looks collapsed or close to it: {'; '.join(signs)}. {_advice(config)}"


def _mean(records: Sequence[dict[str, Any]], key: str) -> float:
    return float(sum(record[key] for record in records)) / len(records)


def _advice(config: RunConfig) -> str:
    views, optim = config.views, config.optim
    crop = "crops keep the scale"
    if views.crop == "resized":
        crop = f"--crop-scale is {views.crop_scale[0]:g} {views.crop_scale[1]:g}"
    return (
        f"Try, one at a time: (1) other distortions: {crop}, jitter acts with probability {views.jitter:g} at "
        f"strengths {views.brightness:g}/{views.contrast:g}/{views.saturation:g}/{views.hue:g}, grayscale "
        f"{views.grayscale:g}, blur {views.blur:g}; (2) the learning rate and its schedule: the peak is "
        f"{optim.peak_lr(config.train.batch_size):.3g} after {optim.warmup_epochs:g} epochs of warm-up, momentum "
        f"{optim.momentum:g}, weight decay {optim.weight_decay:g}; (3) backbone and heads: {config.backbone}, "
        f"{config.method.heads}; (4) another method: --method {_other(config.method.name)}, or see `diptych methods`."
    )


def _other(method: str) -> str:
    """Name a method whose loss keeps every channel varying."""
    return "barlow" if method == "vicreg" else "vicreg"
