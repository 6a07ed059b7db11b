"""One method a file; ``METHODS`` lists them. To add one: write its file, add its config to ``METHODS``."""

from typing import TYPE_CHECKING, TypeAlias, Union

from diptych.methods.barlow import BarlowConfig
from diptych.methods.base import Method, MethodConfig
from diptych.methods.byol import BYOLConfig
from diptych.methods.dino import DINOConfig
from diptych.methods.fastsiam import FastSiamConfig
from diptych.methods.lejepa import LeJEPAConfig
from diptych.methods.moco import MoCoConfig
from diptych.methods.simclr import SimCLRConfig
from diptych.methods.simsiam import SimSiamConfig
from diptych.methods.swav import SwAVConfig
from diptych.methods.vicreg import VICRegConfig

METHODS: dict[str, type[MethodConfig]] = {
    "simsiam": SimSiamConfig,
    "fastsiam": FastSiamConfig,
    "simclr": SimCLRConfig,
    "byol": BYOLConfig,
    "moco": MoCoConfig,
    "swav": SwAVConfig,
    "barlow": BarlowConfig,
    "vicreg": VICRegConfig,
    "lejepa": LeJEPAConfig,
    "dino": DINOConfig,
}

if TYPE_CHECKING:
    AnyMethodConfig: TypeAlias = MethodConfig
else:
    AnyMethodConfig = Union[tuple(METHODS.values())]  # noqa: UP007  # what JSON and the command line choose from

__all__ = [
    "METHODS",
    "AnyMethodConfig",
    "BYOLConfig",
    "BarlowConfig",
    "DINOConfig",
    "FastSiamConfig",
    "LeJEPAConfig",
    "Method",
    "MethodConfig",
    "MoCoConfig",
    "SimCLRConfig",
    "SimSiamConfig",
    "SwAVConfig",
    "VICRegConfig",
]
