"""Patches: a picture as the patches it holds. Nothing is learned by gradients; a first answer in minutes on a CPU.

Whitened random patches: Coates & Ng 2011 ("The importance of encoding versus training with sparse coding and vector
quantization", ICML); Thiry et al. 2021 (arXiv 2101.07528). That codes are brought to the axes on which pictures differ
most, compared with the variance within them, is in the spirit of the sparse manifold transform (Chen et al. 2022, arXiv
2209.15261), which asks that neighbouring patches lie close together.

Deviations: filters are drawn, not learned (as in the first two), and no second layer stands on the first; the threshold
is one of cosines.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from tyro.conf import Suppress

from diptych.backbones.patches import THRESHOLD, PatchNetwork
from diptych.errors import DataError, check
from diptych.methods.base import About

PASSES = 2
"""How often ``fit`` goes through the pictures."""

FLAT = 1e-8
"""Variance of patches, in normalised pictures, below which nothing but rounding is left of them."""

Batches = Callable[[], Iterable[Tensor]]
"""Each call begins a pass over all pictures, in the same order: normalised ``(B, C, S, S)`` float32."""


@dataclass(frozen=True, kw_only=True)
class PatchesConfig:
    """Settings of patches; how many filters there are is the backbone's name, ``patches:1024``."""

    about: ClassVar[About] = About(
        idea="Count which whitened patches a picture holds where; keep what differs between pictures. No gradients.",
        paper="Coates & Ng 2011 (ICML); Thiry et al. 2021, arXiv 2101.07528; Chen et al. 2022, arXiv 2209.15261",
        needs="minutes on a CPU, two passes; --backbone patches:FILTERS",
    )
    losses_compare: ClassVar[bool] = False
    per_picture: ClassVar[bool] = False
    name: Suppress[Literal["patches"]] = "patches"
    patch_whitening: float = 0.1
    """Added to the variances of patches before they are made equal, as a part of their mean."""
    patch_threshold: float = THRESHOLD
    """Cosine with a filter, -1 to 1, from which on a patch counts as like it."""
    code_whitening: float = 0.01
    """Added to the variances of codes before they are made equal, as a part of their mean."""

    def __post_init__(self) -> None:
        check(self, "more than 0", lambda value: value > 0, "patch_whitening", "code_whitening")
        check(self, "from -1 to below 1", lambda value: -1 <= value < 1, "patch_threshold")

    @property
    def heads(self) -> str:
        """What stands on the backbone, for people: nothing."""
        return "none"


def fit(
    network: PatchNetwork,
    batches: Batches,
    config: PatchesConfig,
    generator: torch.Generator,
    tell: Callable[[int, str], None] = lambda done, text: None,
) -> int:
    """Set all weights of ``network`` from pictures, in two passes, without labels and without gradients.

    Memory does not grow with the number of pictures: sums, and as many of them as there are filters.

    Args:
        network: built for these pictures; its weights are replaced.
        batches: starts a pass; any batch size gives the same weights, but for rounding.
        config: the settings.
        generator: decides which patches become filters.
        tell: is told how many pictures were seen (both passes count) and what is being done.

    Returns:
        How many pictures there were.

    Raises:
        DataError: there are fewer than two pictures, no patch differs from another, or values are not finite.
    """
    with torch.no_grad():
        count = _fit_filters(network, batches(), config, generator, tell)
        _fit_projection(network, batches(), config, count, tell)
    return count


def _fit_filters(
    network: PatchNetwork,
    batches: Iterable[Tensor],
    config: PatchesConfig,
    generator: torch.Generator,
    tell: Callable[[int, str], None],
) -> int:
    """Set whitening and filters from the first pass; return the number of pictures."""
    values = len(network.whitening)
    second_moment = torch.zeros(values, values, dtype=torch.float64)
    sample: list[Tensor] = []
    count = patches = 0
    for images in batches:
        pictures = network.shrunk(images)
        rows = network.patches(pictures).flatten(0, 1)
        second_moment += (rows.T @ rows).cpu().double()
        patches += len(rows)
        for picture in pictures:
            _reservoir(sample, picture, count, len(network.filters), generator)
            count += 1
        tell(count, "whitening")
    if count < 2:
        raise DataError(f"patches learns from what differs between pictures: give it two or more, not {count}")
    if not second_moment.isfinite().all():
        raise DataError("pictures hold values that are not finite numbers: look at them with audit")
    # Patches are centred already (each picture's mean colour is taken off), so this is their covariance.
    if not second_moment.trace() / patches > FLAT:
        raise DataError("every picture is of one colour, so patches has nothing to learn from: look at them with audit")
    network.whitening.copy_(inverse_root(second_moment / patches, config.patch_whitening))
    network.filters.copy_(_filters(network, sample, generator))
    network.threshold.fill_(config.patch_threshold)
    return count


def _reservoir(sample: list[Tensor], picture: Tensor, seen: int, size: int, generator: torch.Generator) -> None:
    """Keep ``size`` pictures, each of those seen so far with the same chance (Vitter 1985, algorithm R)."""
    if seen < size:
        sample.append(picture.clone())  # a view would keep its whole batch
        return
    place = int(torch.randint(seen + 1, (), generator=generator))
    if place < size:
        sample[place] = picture.clone()


def _filters(network: PatchNetwork, sample: list[Tensor], generator: torch.Generator) -> Tensor:
    """Draw ``(K, D)`` whitened patches of unit length, as evenly from the sampled pictures as they allow."""
    positions = network.pooling.shape[1]
    drawn = torch.randint(positions, (len(network.filters),), generator=generator).tolist()
    rows = [network.patches(sample[number % len(sample)][None])[0, position] for number, position in enumerate(drawn)]
    return F.normalize(torch.stack(rows) @ network.whitening)


def _fit_projection(
    network: PatchNetwork,
    batches: Iterable[Tensor],
    config: PatchesConfig,
    count: int,
    tell: Callable[[int, str], None],
) -> None:
    """Set mean and projection from the second pass."""
    filters = len(network.filters)
    mean = torch.zeros(filters, dtype=torch.float64)
    of_cells, of_pictures = (torch.zeros(filters, filters, dtype=torch.float64) for _ in range(2))
    done = 0
    for images in batches:
        codes = network.codes(images)
        cells, pictures = codes.flatten(0, 1), codes.mean(dim=1)
        mean += pictures.sum(dim=0).cpu().double()
        of_cells += (cells.T @ cells).cpu().double() / codes.shape[1]
        of_pictures += (pictures.T @ pictures).cpu().double()
        done += len(images)
        tell(count + done, "projection")
    mean /= count
    if not (of_cells / count - mean.outer(mean)).trace() > 0:
        raise DataError(
            f"no patch is as like a filter as --patch-threshold {config.patch_threshold} demands: type a lower one"
        )
    whitening = inverse_root(of_cells / count - mean.outer(mean), config.code_whitening)
    _, axes = torch.linalg.eigh(whitening @ (of_pictures / count - mean.outer(mean)) @ whitening)
    kept = network.projection.shape[1]
    network.mean.copy_(mean)
    network.projection.copy_(whitening @ axes.flip(1)[:, :kept])  # the largest shares first


def inverse_root(covariance: Tensor, added: float) -> Tensor:
    """Return the symmetric matrix that makes variances equal: (C + added · mean variance · I)^(-1/2).

    Args:
        covariance: C, ``(D, D)`` float64.
        added: keeps directions that hardly vary, noise, from being blown up; a part of the mean variance.
    """
    variances, axes = torch.linalg.eigh(covariance)
    scales = (variances.clamp_min(0) + added * variances.mean()).rsqrt()
    root: Tensor = (axes * scales) @ axes.T
    return root
