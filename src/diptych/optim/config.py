"""How the weights move: one dataclass, validated once."""

from dataclasses import dataclass

from diptych.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """SGD with momentum, linear warm-up and cosine decay to zero (SimSiam, arXiv 2011.10566, section 4)."""

    lr: float = 0.05
    """Learning rate for a batch of 256; the rate used is lr × batch size / 256 unless --no-lr-scaling."""
    lr_scaling: bool = True
    """Scale the learning rate linearly with the batch size (Goyal et al., arXiv 1706.02677)."""
    momentum: float = 0.9
    """Momentum of SGD, in 0..1."""
    weight_decay: float = 1e-4
    """L2 penalty added to the gradient of every weight, biases and norms included, as in the paper."""
    warmup_epochs: float = 0.0
    """Epochs over which the learning rate rises linearly from zero."""

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ConfigError(f"--lr must be above 0, not {self.lr}")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"--momentum must be in 0..1, 1 excluded, not {self.momentum}")
        if self.weight_decay < 0:
            raise ConfigError(f"--weight-decay must be 0 or more, not {self.weight_decay}")
        if self.warmup_epochs < 0:
            raise ConfigError(f"--warmup-epochs must be 0 or more, not {self.warmup_epochs}")

    def peak_lr(self, batch_size: int) -> float:
        """Learning rate at the end of the warm-up, for the global ``batch_size``."""
        return self.lr * batch_size / 256 if self.lr_scaling else self.lr

    def told_peak_lr(self, batch_size: int) -> str:
        """The same for people, with the rule: ``0.015 = 0.03 × 128 / 256``."""
        peak = f"{self.peak_lr(batch_size):.3g}"
        return f"{peak} = {self.lr:g} × {batch_size} / 256" if self.lr_scaling else peak
