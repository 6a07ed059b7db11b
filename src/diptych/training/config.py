"""A run's complete configuration: its components' own dataclasses, and what belongs to the loop."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from diptych.data.decoding.pixels import PixelFormat
from diptych.data.stores.store import StoreConfig
from diptych.errors import ConfigError
from diptych.methods import AnyMethodConfig, SimSiamConfig
from diptych.optim.config import OptimConfig
from diptych.views.pipeline import ViewsConfig


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long, in what portions, and with what arithmetic."""

    epochs: int = 100
    """Passes over the pictures."""
    batch_size: int = 256
    """Pictures a step, over all processes together."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 runs convolutions and products in bfloat16 (autocast); weights and losses stay float32."""
    patience: int = 0
    """Stop after this many epochs without a lower mean loss and restore the best epoch's weights; 0 never stops."""
    seed: int = 0
    """Every random number of the run follows from it."""

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ConfigError(f"--epochs must be 1 or more, not {self.epochs}")
        if self.batch_size < 2:
            raise ConfigError(f"--batch-size must be 2 or more (batch norm needs company), not {self.batch_size}")
        if self.patience < 0:
            raise ConfigError(f"--patience must be 0 or more, not {self.patience}")
        if self.seed < 0:
            raise ConfigError(f"--seed must be 0 or more, not {self.seed}")


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

    def __post_init__(self) -> None:
        if self.image_size < 8:
            raise ConfigError(f"--image-size must be 8 or more pixels, not {self.image_size}")
        if self.channels < 1:
            raise ConfigError(f"--channels must be 1 or more, not {self.channels}")
        if self.train.patience and not self.method.losses_compare:
            raise ConfigError(
                f"--patience does not go with {self.method.name}, whose losses do not compare along a run: leave it out"
            )
        if (self.method.name == "patches") != self.backbone.startswith("patches"):
            raise ConfigError(
                "--method patches and --backbone patches:FILTERS go together, not "
                f"--method {self.method.name} with --backbone {self.backbone}"
            )
        if self.method.name == "patches" and self.init_from:
            raise ConfigError("patches begins with nothing but pictures: leave out --init-from")
        if self.tile is not None and self.tile < 8:
            raise ConfigError(f"--tile must be 8 or more pixels, not {self.tile}")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"--limit must be 1 or more pictures, not {self.limit}")

    @property
    def pixels(self) -> PixelFormat:
        """What every picture is brought to."""
        return PixelFormat(channels=self.channels, depth=self.depth)
