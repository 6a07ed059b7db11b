"""Whether what was written computes what the run computes: the same features, and the same neighbours by them."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.errors import RunFolderError

TOLERANCE = 1e-4
"""Largest difference between two features, absolute …"""
RELATIVE = 1e-5
"""… or as a share of the largest feature, where that is above 10: float32 has no more digits to spare there."""
NEIGHBOURS = 10
TIE = 1e-5
"""Neighbours whose cosines differ by less may change places."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far two sets of features of the same pictures are apart."""

    difference: float
    """The largest between two features; infinite where one is no finite number."""
    allowed: float
    """The largest that is accepted."""
    neighbours: int
    """How many of each picture were compared."""
    neighbours_equal: bool
    """Whether each picture has the same ones, ties aside."""
    pictures: int

    @property
    def sentence(self) -> str:
        """For people."""
        same = "equal" if self.neighbours_equal else "not equal"
        return (
            f"on {self.pictures} pictures the features differ by {self.difference:.1e} at most ({self.allowed:.0e} is "
            f"allowed), and the {self.neighbours} nearest neighbours are {same}"
        )


def compare(reference: Tensor, found: Tensor) -> Parity:
    """Compare features ``(N, D)`` float32 of N ≥ 2 pictures with those of the run, by value and by cosine neighbours.

    Args:
        reference: of the run.
        found: of what was written.
    """
    largest = float(reference.abs().max())
    same_shape = found.shape == reference.shape and bool(found.isfinite().all())
    count = min(NEIGHBOURS, len(reference) - 1)
    return Parity(
        difference=float((found - reference).abs().max()) if same_shape else float("inf"),
        allowed=max(TOLERANCE, RELATIVE * largest),
        neighbours=count,
        neighbours_equal=same_shape and _same_neighbours(reference, found, count),
        pictures=len(reference),
    )


def _same_neighbours(reference: Tensor, found: Tensor, count: int) -> bool:
    """Whether the cosines of both lists of neighbours, by the reference, are the same at each place, up to ties."""
    cosines = _cosines(reference)
    ours, theirs = (values.topk(count, dim=1).indices for values in (cosines, _cosines(found)))
    return bool(((cosines.gather(1, ours) - cosines.gather(1, theirs)).abs() <= TIE).all())


def _cosines(features: Tensor) -> Tensor:
    unit = F.normalize(features.double(), dim=1)
    return (unit @ unit.T).fill_diagonal_(-torch.inf)


def refuse_unlike(parity: Parity, form: str) -> None:
    """Refuse what computes something else than the run.

    Raises:
        RunFolderError: a feature or a neighbour differs.
    """
    if parity.difference > parity.allowed or not parity.neighbours_equal:
        raise RunFolderError(
            f"--to {form}: what was written does not compute what the run does ({parity.sentence}), so it was removed: "
            "choose another form, and report this with the name of the backbone"
        )
