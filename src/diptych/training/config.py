"""A run's complete configuration: its components' own dataclasses, and what belongs to the loop."""

from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from tyro.conf import Positional, arg

from diptych.data.decoding.pixels import PixelFormat
from diptych.data.stores.store import StoreConfig
from diptych.errors import ConfigError, check
from diptych.methods import AnyMethodConfig, SimSiamConfig
from diptych.optim.config import OptimConfig
from diptych.views.pipeline import ViewsConfig

Measure: TypeAlias = Literal[
    "loss", "embedding_std", "effective_rank", "neighbour_stability", "knn_top1", "linear_top1"
]
"""What an epoch can be the best by: the lowest loss, or the highest of the others."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long, in what portions, and with what arithmetic."""

    epochs: int = 100
    """Passes over the pictures."""
    batch_size: int = 256
    """Pictures a step, over all processes together; auto makes the recipe's own smaller where a step would not fit."""
    accumulate: int = 1
    """Portions in which each process computes its part of a batch: as much less memory for activations."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """bf16 and fp16 run convolutions and products in 16 bits (autocast); weights and losses stay float32."""
    clip_norm: float | None = None
    """Shorten the gradient of all weights together to this length where it is longer."""
    checkpoint_activations: bool = False
    """Compute the backbone's activations again in the backward pass instead of keeping them: less memory, more time."""
    compile: bool = False
    """Compile the backbone with torch.compile: minutes before the first step, faster ones after it on a GPU."""
    best_by: Measure | None = None
    """Keep the epoch's weights that are best by this; by loss where only --patience is given, else the last epoch's."""
    patience: int = 0
    """Stop after this many epochs that are no better by --best-by; 0 never stops."""
    seed: int = 0
    """Every random number of the run follows from it."""

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise ConfigError(f"--batch-size must be 2 or more (batch norm needs company), not {self.batch_size}")
        check(self, "1 or more", lambda value: value >= 1, "epochs", "accumulate")
        check(self, "0 or more", lambda value: value >= 0, "patience", "seed")
        check(self, "above 0", lambda value: value > 0, *(() if self.clip_norm is None else ("clip_norm",)))

    @property
    def watched(self) -> "Measure | None":
        """By what the best epoch is told; None where the last epoch's weights are kept."""
        return self.best_by or ("loss" if self.patience else None)


@dataclass(frozen=True, kw_only=True)
class CareConfig:
    """What is done when something goes wrong, and what is kept for that case."""

    keep: int = 2
    """Newest checkpoints kept, beside those of the best and of the last healthy epoch."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """At a loss or gradient that is not a finite number: stop the run, or leave out the step."""
    max_skips: int = 10
    """Steps left out in the whole run, at most."""
    on_collapse: Literal["warn", "stop", "recover"] = "warn"
    """When the guard finds the run collapsed or diverging: say so, stop, or go back to a healthy state and change."""
    recoveries: int = 3
    """Times a run may go back, each with another change."""

    def __post_init__(self) -> None:
        check(self, "1 or more", lambda value: value >= 1, "keep", "recoveries")
        check(self, "0 or more", lambda value: value >= 0, "max_skips")


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Labels that watch a run, which learns without them."""

    probe: Annotated[str | None, arg(metavar="LABELLED")] = None
    """Labelled pictures, as for evaluate, on which the accuracy of kNN and of a linear probe is followed meanwhile."""
    probe_pictures: int = 2000
    """Of these at most, drawn by a fixed seed: half to learn a probe from, half to judge it by."""
    probe_every: int = 1
    """Epochs from one such measurement to the next; the last epoch always has one."""

    def __post_init__(self) -> None:
        check(self, "8 or more", lambda value: value >= 8, "probe_pictures")
        check(self, "1 or more", lambda value: value >= 1, "probe_every")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run's result; saved in ``run.json`` and compared on ``--resume``."""

    data: Annotated[Positional[str], arg(metavar="DATA")]
    """A folder, archive, list or shards of pictures, hub:NAME, cifar10 or photos."""
    data_dir: Annotated[str | None, arg(metavar="FOLDER")] = None
    """Where the archive of a named data set lies or shall lie."""
    limit: Annotated[int | None, arg(metavar="N")] = None
    """Use this many pictures, drawn evenly at random by a fixed seed; of tar shards, the pictures of one epoch."""
    tile: Annotated[int | None, arg(metavar="PIXELS")] = None
    """Cut each picture into squares of this many pixels a side, each a picture of its own; for scans and maps."""
    image_size: int = 224
    """Pixels a side of the stored pictures and of the views."""
    channels: int = 3
    """Of every picture: one is repeated to make three, three give one by their luma, others are refused."""
    depth: Literal["uint8", "uint16", "float32"] = "uint8"
    """What a pixel's values are stored as: 8 bits, 16 bits, or floating point of any range."""
    storage: StoreConfig = field(default_factory=StoreConfig)
    backbone: str = "timm:resnet50"
    """resnet20v2, resnet56v2, resnet110v2, resnet164v2 (or with -nofinal), timm:MODEL, or patches:FILTERS."""
    init_from: Annotated[str | None, arg(metavar="RUN|FILE|timm-pretrained")] = None
    """Begin with the weights of another run, of a .safetensors file, or timm's own (a download); random without it."""
    method: AnyMethodConfig = field(default_factory=SimSiamConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    care: CareConfig = field(default_factory=CareConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)

    def __post_init__(self) -> None:
        if self.image_size < 8:
            raise ConfigError(f"--image-size must be 8 or more pixels, not {self.image_size}")
        if self.channels < 1:
            raise ConfigError(f"--channels must be 1 or more, not {self.channels}")
        if self.train.watched == "loss" and not self.method.losses_compare:
            raise ConfigError(
                f"the losses of {self.method.name} do not compare along a run and cannot tell which epoch is best: "
                "choose another --best-by, such as neighbour_stability, or leave out --patience"
            )
        if self.chosen_by_labels and not self.probe.probe:
            raise ConfigError(f"--best-by {self.train.watched} needs labelled pictures: add --probe LABELLED")
        if self.train.accumulate > 1 and not self.method.per_picture:
            raise ConfigError(
                f"--accumulate does not go with {self.method.name}, whose loss compares all pictures of a batch with "
                "one another, so that portions have another gradient: leave it out, and use --checkpoint-activations"
            )
        if self.train.batch_size % self.train.accumulate or self.train.batch_size < 2 * self.train.accumulate:
            raise ConfigError(
                f"--batch-size {self.train.batch_size} cannot be shared out in {self.train.accumulate} portions of two "
                "pictures or more: choose another --accumulate"
            )
        if (self.method.name == "patches") != self.backbone.startswith("patches"):
            raise ConfigError(
                "--method patches and --backbone patches:FILTERS go together, not "
                f"--method {self.method.name} with --backbone {self.backbone}"
            )
        if self.method.name == "patches" and self.probe.probe:
            raise ConfigError(
                "patches has no epochs to follow: leave out --probe, and type `diptych evaluate` afterwards"
            )
        if self.method.name == "patches" and self.init_from:
            raise ConfigError("patches begins with nothing but pictures: leave out --init-from")
        if self.tile is not None and self.tile < 8:
            raise ConfigError(f"--tile must be 8 or more pixels, not {self.tile}")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"--limit must be 1 or more pictures, not {self.limit}")

    @property
    def chosen_by_labels(self) -> bool:
        """Whether labels choose the weights that are kept; training itself never sees any."""
        return self.train.watched in ("knn_top1", "linear_top1")

    @property
    def pixels(self) -> PixelFormat:
        """What every picture is brought to."""
        return PixelFormat(channels=self.channels, depth=self.depth)
