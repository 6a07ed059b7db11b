"""Learn image representations from a folder of unlabeled pictures, and prove whether it helped.

>>> import diptych
>>> run = diptych.pretrain("pictures/", "runs/mine", epochs=5)
>>> proof = diptych.evaluate("runs/mine", "labelled/")
>>> proof["verdict"]["sentence"]
>>> backbone = diptych.load("runs/mine")
>>> backbone.embed(["a.jpg", "b.jpg"])  # (2, 256) float32
>>> diptych.embed("runs/mine", "pictures/", "vectors.parquet")
>>> vectors = diptych.read_vectors("vectors.parquet")
>>> diptych.search(vectors, "query.jpg", k=5).hits
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diptych.api.handing_on import push
    from diptych.api.judging import audit, compare, evaluate, report, segment, select
    from diptych.api.learning import pretrain, preview, resume
    from diptych.api.maps import explore, export_map
    from diptych.api.vectors import embed
    from diptych.errors import UserError
    from diptych.evaluation.choosing.select import Selection
    from diptych.frozen import FrozenBackbone, load
    from diptych.handoff.export import Exported, export
    from diptych.handoff.push import Pushed
    from diptych.handoff.weights import read_backbone
    from diptych.training.result import RunResult
    from diptych.vectors.duplicates import Duplicates, duplicates
    from diptych.vectors.embed import Embedded
    from diptych.vectors.outliers import Outliers, outliers
    from diptych.vectors.search import Found, search
    from diptych.vectors.select_labels import Chosen, select_labels
    from diptych.vectors.table import Vectors, read_vectors

__all__ = [
    "Chosen",
    "Duplicates",
    "Embedded",
    "Exported",
    "Found",
    "FrozenBackbone",
    "Outliers",
    "Pushed",
    "RunResult",
    "Selection",
    "UserError",
    "Vectors",
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

_PLACES = {
    "api.handing_on": "push",
    "api.judging": "audit compare evaluate report segment select",
    "api.learning": "pretrain preview resume",
    "api.maps": "explore export_map",
    "api.vectors": "embed",
    "errors": "UserError",
    "evaluation.choosing.select": "Selection",
    "frozen": "FrozenBackbone load",
    "handoff.export": "Exported export",
    "handoff.push": "Pushed",
    "handoff.weights": "read_backbone",
    "training.result": "RunResult",
    "vectors.duplicates": "Duplicates duplicates",
    "vectors.embed": "Embedded",
    "vectors.outliers": "Outliers outliers",
    "vectors.search": "Found search",
    "vectors.select_labels": "Chosen select_labels",
    "vectors.table": "Vectors read_vectors",
}
"""Which module has what. Each is loaded when it is first used, with what it needs and no more."""


def __getattr__(name: str) -> Any:
    """Load one of the library's calls: ``import diptych`` itself loads no torch, and a search loads no training."""
    for module, names in _PLACES.items():
        if name in names.split():
            return getattr(import_module(f"diptych.{module}"), name)
    raise AttributeError(f"module 'diptych' has no attribute {name!r}")
