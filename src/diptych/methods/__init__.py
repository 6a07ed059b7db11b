"""One method a file; ``METHODS`` lists them. To add one: write its file, add its config to ``METHODS``."""

from typing import TYPE_CHECKING, TypeAlias, Union

from diptych.methods.base import Method, MethodConfig
from diptych.methods.simsiam import SimSiamConfig

METHODS: dict[str, type[MethodConfig]] = {
    "simsiam": SimSiamConfig,
}

if TYPE_CHECKING:
    AnyMethodConfig: TypeAlias = MethodConfig
else:
    AnyMethodConfig = Union[tuple(METHODS.values())]  # noqa: UP007  # what JSON and the command line choose from

__all__ = ["METHODS", "AnyMethodConfig", "Method", "MethodConfig", "SimSiamConfig"]
