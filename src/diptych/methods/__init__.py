"""One method a file; ``METHODS`` lists them. To add one: write its file, add its config to ``METHODS``."""

from typing import TYPE_CHECKING, TypeAlias, Union

from diptych.methods.barlow import BarlowConfig
from diptych.methods.base import Method, MethodConfig
from diptych.methods.byol import BYOLConfig
from diptych.methods.dino import DINOConfig
from diptych.methods.fastsiam import FastSiamConfig
from diptych.methods.lejepa import LeJEPAConfig
from diptych.methods.moco import MoCoConfig
from diptych.methods.patches import PatchesConfig
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

ALL_METHODS: dict[str, type[MethodConfig] | type[PatchesConfig]] = {**METHODS, "patches": PatchesConfig}
"""Those that learn by a loss, and the one that computes no gradients."""

if TYPE_CHECKING:
    AnyMethodConfig: TypeAlias = MethodConfig | PatchesConfig
else:
    AnyMethodConfig = Union[tuple(ALL_METHODS.values())]  # noqa: UP007  # what JSON and the command line choose from

__all__ = [
    "ALL_METHODS",
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
    "PatchesConfig",
    "SimCLRConfig",
    "SimSiamConfig",
    "SwAVConfig",
    "VICRegConfig",
]
