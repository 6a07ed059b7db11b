"""What looks at a run's frozen backbone at the end of its epochs, as training sees it.

It is built above this floor and handed to ``run.py``: ``evaluation/``, which measures, is no room for training to know.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeAlias

from torch import Tensor

from diptych.distributed import World
from diptych.errors import DataError
from diptych.frozen import FrozenBackbone
from diptych.progress import Terminal
from diptych.training.config import RunConfig
from diptych.training.loop import Parts
from diptych.training.pictures import Pictures
from diptych.training.result import backbone_card


class Evaluator(Protocol):
    """Measures the backbone at the end of an epoch."""

    @property
    def described(self) -> Mapping[str, Any] | None:
        """What ``run.json`` says of its labelled pictures; None where there are none, and in other processes."""

    def begin(self, some: Callable[[int, int], Tensor], count: int) -> None:
        """Draw what it needs of the run's ``count`` pictures by ``some(n, seed)``, ``(n, C, S, S)``."""

    def __call__(self, frozen: Callable[[], FrozenBackbone], epochs: int) -> Mapping[str, float]:
        """Measure what is due after so many epochs, on what ``frozen`` returns: the same values in every process."""

    def state(self) -> Mapping[str, Tensor]:
        """Return what it remembers from one epoch to the next, for a checkpoint."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to what ``state`` gave."""


OpenEvaluator: TypeAlias = Callable[[RunConfig, World, Terminal], Evaluator]
"""Reads the labelled pictures of a run, if it has some, and refuses them where they cannot be used."""


def observed(parts: Parts, evaluator: Evaluator, features: int) -> Parts:
    """Let ``evaluator`` measure copies of the backbone that ``parts`` trains, of so many features."""
    card = backbone_card(parts.config, features)

    def frozen() -> FrozenBackbone:
        # A copy is put into evaluation mode, never compiled, and leaves nothing behind in what is trained.
        return FrozenBackbone(copy.deepcopy(parts.method.kept), card, parts.device)

    return replace(parts, evaluate=lambda epochs: evaluator(frozen, epochs), kept_state=evaluator.state)


def begin(evaluator: Evaluator | None, pictures: Pictures, before: Mapping[str, Any] | None = None) -> None:
    """Give an evaluator its pictures.

    Args:
        evaluator: if there is one.
        pictures: of the run.
        before: what ``run.json`` says of the labelled pictures of a run that goes on.

    Raises:
        DataError: these are no longer the labelled pictures that the run was begun with.
        ConfigError: what the run tells its best epoch by will never be measured.
    """
    if evaluator is None:
        return
    now = evaluator.described
    if before and now and now["fingerprint"] != before["fingerprint"]:
        raise DataError(
            f"the labelled pictures in {now['name']} have changed since the run was begun, and their numbers would not "
            "compare: put them back, or start again with --overwrite"
        )
    evaluator.begin(pictures.some, pictures.count)
