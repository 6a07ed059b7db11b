"""What a run came to, and what its backbone is saved with."""

from dataclasses import dataclass
from typing import Literal

from diptych.frozen import BackboneCard, Preprocessing
from diptych.runs import SCHEMA_VERSION
from diptych.training.config import RunConfig

Status = Literal["finished", "stopped early", "interrupted", "collapsed"]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run came to."""

    run: str
    """The run folder."""
    status: Status
    steps: int
    epochs: float
    loss: float | None
    """Mean over the last epoch's records; None where there is no loss."""
    seconds: float
    images_per_second: float
    warnings: list[str]


def backbone_card(config: RunConfig, features: int) -> BackboneCard:
    """Return what ``backbone.json`` says."""
    return BackboneCard(
        schema_version=SCHEMA_VERSION,
        backbone=config.backbone,
        num_features=features,
        seed=config.train.seed,
        init_from=config.init_from,
        preprocessing=Preprocessing(
            image_size=config.image_size,
            channels=config.channels,
            depth=config.depth,
            tile=config.tile,
            mean=config.views.mean,
            std=config.views.std,
            low=config.views.low,
            high=config.views.high,
        ),
    )
