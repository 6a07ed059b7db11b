"""One method a file; ``METHODS`` lists them. To add one: write its file, add its config to ``METHODS``."""

from diptych.methods.base import Method, MethodConfig
from diptych.methods.simsiam import SimSiamConfig

METHODS: dict[str, type[MethodConfig]] = {"simsiam": SimSiamConfig}

__all__ = ["METHODS", "Method", "MethodConfig", "SimSiamConfig"]
