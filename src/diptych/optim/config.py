"""How the weights move: one dataclass, validated once."""

from dataclasses import dataclass
from typing import Literal

from diptych.errors import check


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """SGD, AdamW or LARS, linear warm-up and cosine decay to zero; the defaults are SimSiam's (arXiv 2011.10566)."""

    optimizer: Literal["sgd", "adamw", "lars"] = "sgd"
    """sgd with momentum; adamw; or lars, for batches of thousands."""
    lr: float = 0.05
    """Learning rate for a batch of 256; the rate used is lr × batch size / 256 unless --no-lr-scaling."""
    lr_scaling: bool = True
    """Scale the learning rate linearly with the batch size (Goyal et al., arXiv 1706.02677)."""
    momentum: float = 0.9
    """Momentum, in 0..1; β₁ of AdamW."""
    weight_decay: float = 1e-4
    """SGD and LARS add this times the weight to its gradient; AdamW shrinks the weight by it."""
    final_weight_decay: float | None = None
    """Weight decay at the end of the run, reached along half a cosine, as DINO raises it; None keeps it as it is."""
    decay_all: bool = True
    """Let weight decay, and LARS's adaptation, act on biases and norms too, as SimSiam does."""
    warmup_epochs: float = 0.0
    """Epochs over which the learning rate rises linearly from zero."""

    def __post_init__(self) -> None:
        final = () if self.final_weight_decay is None else ("final_weight_decay",)
        check(self, "above 0", lambda value: value > 0, "lr")
        check(self, "in 0..1, 1 excluded", lambda value: 0 <= value < 1, "momentum")
        check(self, "0 or more", lambda value: value >= 0, "weight_decay", *final, "warmup_epochs")

    def peak_lr(self, batch_size: int) -> float:
        """Learning rate at the end of the warm-up, for the global ``batch_size``."""
        return self.lr * batch_size / 256 if self.lr_scaling else self.lr

    def told_peak_lr(self, batch_size: int) -> str:
        """The same for people, with the rule: ``0.015 = 0.03 × 128 / 256``."""
        peak = f"{self.peak_lr(batch_size):.3g}"
        return f"{peak} = {self.lr:g} × {batch_size} / 256" if self.lr_scaling else peak
