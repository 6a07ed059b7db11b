"""Learn image representations from a folder of unlabeled pictures, and prove whether it helped."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diptych.api import (
        FrozenBackbone,
        RunResult,
        audit,
        compare,
        duplicates,
        embed,
        evaluate,
        explore,
        export,
        export_map,
        load,
        outliers,
        pretrain,
        preview,
        push,
        read_backbone,
        read_vectors,
        report,
        resume,
        search,
        segment,
        select,
        select_labels,
    )
    from diptych.errors import UserError

__all__ = [
    "FrozenBackbone",
    "RunResult",
    "UserError",
    "audit",
    "compare",
    "duplicates",
    "embed",
    "evaluate",
    "explore",
    "export",
    "export_map",
    "load",
    "outliers",
    "pretrain",
    "preview",
    "push",
    "read_backbone",
    "read_vectors",
    "report",
    "resume",
    "search",
    "segment",
    "select",
    "select_labels",
]


def __getattr__(name: str) -> Any:
    """Load the library's calls when they are first used: ``import diptych`` itself loads no torch."""
    if name not in __all__:
        raise AttributeError(f"module 'diptych' has no attribute {name!r}")
    return getattr(import_module("diptych.errors" if name == "UserError" else "diptych.api"), name)
