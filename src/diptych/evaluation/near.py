"""Test pictures that show the same photograph as a training picture, found by what is seen, and without labels.

The audit's hash of 64 bits is for millions of files that nobody keeps decoded; it finds 14 % of the pictures that lost
two pixels at two edges. Here all pictures lie in memory, and two stages find nearly all of them:

1. **Propose.** The 64 lowest frequencies of the picture in gray (those that the hash rounds to bits) are compared by
   their cosine, test with train, a block at a time; so are the features of a backbone, if there are any. Each test
   picture proposes its ``CANDIDATES`` nearest. Frequencies are weighted by the square root of their height, against
   the 1/f of photographs. A mirrored picture differs in the sign of the odd horizontal frequencies alone, so that
   E + |O| takes the better of both at the cost of one.
2. **Confirm.** One picture is moved and stretched onto the other: least squares on the picture and its derivatives (the
   tangents of Simard, LeCun and Denker 1993, "Efficient Pattern Recognition Using a New Transformation Distance";
   iterated, the registration of Lucas and Kanade 1981), first on low frequencies, which lead there from two pixels
   away. Then what is left is measured with all frequencies weighing alike: the correlation of the fit. Its outermost
   pixels are left out, where frames and cuts lie. Brightness and contrast are free, and colour is not looked at.

A pair is confirmed where the correlation reaches ``ALIKE`` and stands ``SURPRISE`` standard errors above that of two
pictures drawn at random, by Fisher's z. The error is that of as many values as the picture really holds: one edge on
an even ground, however well it fits another, is no evidence, and where all pictures are framed alike (digits,
radiographs) more is asked for. Pictures of so little content are never called near; their exact copies are found by
other means.

Measured on CIFAR-10 (600 test pictures against all 50,000): 40 were called near, and all of them show, looked at one
by one, the photograph of a training picture; the next 30 are other pictures, save a few frames of one scene. Of 400
training pictures recompressed (JPEG quality 30), cut by one or two pixels at two or four edges, brightened by 30 %, or
mirrored and cut, 95 to 99 % are found. Of 1,300 patches of six photographs, 32 px of each, two are called near others,
which lie beside them on the rim of a saucer; and of 900 handwritten digits (scikit-learn's, 8 × 8) three.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.data.decoding.pixels import LUMA
from diptych.data.hashes import FLAT, LOW, SIDE, waves
from diptych.evaluation.probes.knn import nearest
from diptych.seeding import DRAW, generator

CANDIDATES = 5
"""Training pictures that each test picture is compared with, and as many again by features."""
ROUGH = 0.75
"""Correlation of two pictures fitted without moving, large shapes counting most, below which none is moved."""
ALIKE = 0.9
"""Correlation of two pictures, one moved onto the other, from which they may be the same."""
SURPRISE = 6.0
"""Standard errors above the usual correlation."""
USUAL = 256
"""Pairs drawn at random to see what is usual."""
ROUNDS = 2
"""Times that a picture is moved."""
HALF = SIDE // 2
"""Pixels a side at which pictures are fitted."""
FARTHEST = 2.0
"""Pixels, of ``HALF`` a side, that one round moves at most."""
SKETCH = 512
"""Numbers that features are added up to, where they have more, before all are compared with all."""
SKETCHED = 20
"""Training pictures that each test picture is compared with exactly by its features then."""
FREEDOM = 5
"""Numbers that a fit is free to choose: contrast, and two moves and two stretches."""

_PIXELS_AT_ONCE = 1 << 22
_SIMILARITIES_AT_ONCE = 1 << 22  # 16 MiB of float32
_PAIRS_AT_ONCE = 1 << 11

_INNER = HALF - 2  # without the outermost pixels
_PLACES = (torch.arange(HALF) + 0.5) / (HALF / 2) - 1
_COSINES = torch.cos(torch.pi * (torch.arange(_INNER) + 0.5) * torch.arange(_INNER)[:, None] / _INNER)
_COSINES = _COSINES * torch.full((_INNER, 1), (2 / _INNER) ** 0.5).index_fill_(0, torch.tensor([0]), _INNER**-0.5)
_HEIGHT = torch.hypot(torch.arange(_INNER)[:, None].float(), torch.arange(_INNER).float())


@dataclass(frozen=True, kw_only=True)
class Near:
    """Pairs of a test and a training picture that show the same."""

    pairs: Tensor
    """``(P, 2)`` int64: the test picture's place, the training picture's; sorted."""
    likeness: Tensor
    """``(P,)`` float32, the correlation that was reached, ``ALIKE`` .. 1."""


def near_pairs(train: Tensor, test: Tensor, features: tuple[Tensor, Tensor] | None = None) -> Near:
    """Find the training pictures that test pictures resemble so much that they are the same photograph.

    Takes 1.3 KB a picture, with features 4 KB, and some 100 MiB whatever their number.

    Args:
        train: ``(N, C, S, S)`` uint8, uint16 or float32.
        test: ``(M, C, S, S)``.
        features: ``(N, D)`` and ``(M, D)``, by which to propose pairs too; frequencies alone if None.
    """
    ours, theirs = _look(test), _look(train)
    numbers = [_by_waves(ours, theirs)]
    if features:
        numbers.append(_numbered(_by_features(*features), len(train)))
    candidates = torch.from_numpy(np.unique(torch.cat(numbers).numpy()))
    pairs = torch.stack([candidates // len(train), candidates % len(train)], 1)
    similar, mirrored = _similar(ours, theirs, pairs)
    pairs, mirrored = pairs[similar > 0], mirrored[similar > 0]  # a flat picture is like none
    rough = torch.cat([torch.empty(0), *(_rough(*both) for both in _blocks(ours, theirs, pairs, mirrored))]) >= ROUGH
    pairs, mirrored = pairs[rough], mirrored[rough]
    if not len(pairs):
        return Near(pairs=pairs, likeness=torch.empty(0))
    likeness, values = _likeness(ours, theirs, pairs, mirrored)
    surprise = (_fisher(likeness) - _fisher(_usual(ours, theirs))) * (values - FREEDOM).clamp(min=0).sqrt()
    found = (likeness >= ALIKE) & (surprise >= SURPRISE)
    return Near(pairs=pairs[found], likeness=likeness[found])


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What is compared of N pictures."""

    grays: Tensor
    """``(N, SIDE, SIDE)`` uint8."""
    waves: Tensor
    """``(N, LOW²)`` float32, of length 1; the first half are even horizontally, the second odd. 0 where all is flat."""


def _look(images: Tensor) -> _Look:
    grays = torch.empty((len(images), SIDE, SIDE), dtype=torch.uint8)
    found = torch.empty((len(images), LOW * LOW))
    rows = max(1, _PIXELS_AT_ONCE // images[0].numel())
    weights = torch.hypot(torch.arange(LOW)[:, None].float(), torch.arange(LOW).float()).sqrt()
    for start in range(0, len(images), rows):
        block = slice(start, start + rows)
        grays[block] = gray = _gray(images[block])
        low = torch.from_numpy(waves(gray.numpy())).float() * weights
        low[gray.float().std((1, 2)) < FLAT * 255] = 0
        found[block] = F.normalize(torch.cat([low[:, :, ::2].flatten(1), low[:, :, 1::2].flatten(1)], 1))
    return _Look(grays=grays, waves=found)


def _gray(images: Tensor) -> Tensor:
    """Return ``(B, SIDE, SIDE)`` uint8; values that are no bytes are stretched from darkest to brightest."""
    weights = torch.tensor(LUMA if images.shape[1] == 3 else [1 / images.shape[1]] * images.shape[1])
    gray = torch.einsum("c,bchw->bhw", weights.float(), images.float())
    gray = F.interpolate(gray[:, None], (SIDE, SIDE), mode="bilinear", antialias=True)[:, 0]
    if images.dtype != torch.uint8:
        low, high = gray.amin((1, 2), keepdim=True), gray.amax((1, 2), keepdim=True)
        gray = (gray - low) * (255 / torch.where(high > low, high - low, 1))
    return gray.round().to(torch.uint8)


def _by_features(train: Tensor, test: Tensor) -> Tensor:
    """Return the training pictures ``(M, CANDIDATES)`` that features propose for each test picture, by their cosine.

    Long features are added up with random signs first (a count sketch, Charikar, Chen and Farach-Colton 2002), which
    keeps a small angle small; those that lie nearest then are compared by all numbers.
    """
    if train.shape[1] <= SKETCH:
        return nearest(train, test, CANDIDATES).indices
    rough = nearest(_sketch(train), _sketch(test), SKETCHED).indices
    best = torch.empty((len(test), min(CANDIDATES, len(train))), dtype=torch.int64)
    rows = max(1, _PIXELS_AT_ONCE // (rough.shape[1] * train.shape[1]))
    for start in range(0, len(test), rows):
        block = slice(start, start + rows)
        found = F.normalize(train[rough[block]], dim=2) @ test[block, :, None]
        best[block] = rough[block].gather(1, found[:, :, 0].topk(best.shape[1]).indices)
    return best


def _sketch(features: Tensor) -> Tensor:
    """Add up features ``(N, D)``, each with a random sign, to ``(N, SKETCH)``, in the same way each time."""
    width = features.shape[1]
    parts = -(-width // SKETCH)
    signs = torch.randint(0, 2, (width,), generator=generator(0, DRAW, 2)) * 2.0 - 1
    found = torch.empty((len(features), SKETCH))
    for start in range(0, len(features), rows := max(1, _PIXELS_AT_ONCE // width)):
        block = slice(start, start + rows)
        signed = F.pad(features[block] * signs, (0, parts * SKETCH - width))
        found[block] = signed.reshape(-1, parts, SKETCH).sum(1)
    return found


def _numbered(indices: Tensor, count: int) -> Tensor:
    """Write each pair of a test picture and one of its training pictures ``(M, k)`` as one number."""
    return (torch.arange(len(indices))[:, None] * count + indices).flatten()


def _by_waves(test: _Look, train: _Look) -> Tensor:
    """Return the pairs that the low frequencies propose, as ``_numbered`` writes them."""
    half, count = LOW * LOW // 2, len(train.waves)
    even, odd = train.waves[:, :half].T.contiguous(), train.waves[:, half:].T.contiguous()
    rows = max(1, _SIMILARITIES_AT_ONCE // count)
    # Written in place: large blocks that come and go between small ones that stay would leave a gigabyte of holes.
    indices = torch.empty((len(test.waves), min(CANDIDATES, count)), dtype=torch.int64)
    similar = torch.empty((min(rows, len(test.waves)), count))
    for start in range(0, len(indices), rows):
        part = test.waves[start : start + rows]
        block = torch.mm(part[:, half:], odd, out=similar[: len(part)]).abs_().addmm_(part[:, :half], even)
        indices[start : start + rows] = block.topk(indices.shape[1]).indices
    return _numbered(indices, count)


def _similar(test: _Look, train: _Look, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cosine ``(P,)`` of each pair's low frequencies, and whether that is one of mirror images."""
    half = LOW * LOW // 2
    parts = []
    for block in torch.split(pairs, 1 << 16):
        products = test.waves[block[:, 0]] * train.waves[block[:, 1]]
        parts.append(torch.stack([products[:, :half].sum(1), products[:, half:].sum(1)], 1))
    even, odd = torch.cat(parts).T
    return even + odd.abs(), odd < 0


def _blocks(test: _Look, train: _Look, pairs: Tensor, mirrored: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the gray pictures of some pairs after the other, ``(B, SIDE, SIDE)`` float32 each, turned alike."""
    parts = torch.split(pairs, _PAIRS_AT_ONCE), torch.split(mirrored, _PAIRS_AT_ONCE)
    for some, turned in zip(*parts, strict=True):
        one, other = test.grays[some[:, 0]].float(), train.grays[some[:, 1]].float()
        yield torch.where(turned[:, None, None], one.flip(-1), one), other


def _rough(one: Tensor, other: Tensor) -> Tensor:
    """Return the correlation ``(B,)`` that a fit without moving reaches."""
    one, other = _halved(one), _halved(other)
    return torch.maximum(_fit(one, other, _shapes)[0], _fit(other, one, _shapes)[0])


def _likeness(test: _Look, train: _Look, pairs: Tensor, mirrored: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each pair the correlation ``(P,)`` once aligned, and how many independent values speak for it."""
    found = []
    for one, other in _blocks(test, train, pairs, mirrored):
        # Either may be the one that was cut: what lies outside of it can only be found in the other.
        likeness = torch.maximum(_aligned(one, other), _aligned(other, one))
        found.append(torch.stack([likeness, torch.minimum(_independent(one), _independent(other))]))
    likeness, values = torch.cat(found, 1)
    return likeness, values


def _usual(test: _Look, train: _Look) -> Tensor:
    """Return the median correlation of pictures that were drawn at random."""
    pairs = torch.stack(
        [
            there[torch.randint(len(there), (USUAL,), generator=generator(0, DRAW, side))]
            for side, there in enumerate(look.waves.any(1).nonzero()[:, 0] for look in (test, train))
        ],
        1,
    )
    likeness, _ = _likeness(test, train, pairs, torch.zeros(USUAL, dtype=torch.bool))
    return likeness.median()


def _aligned(still: Tensor, moved: Tensor) -> Tensor:
    """Return the correlation of ``still`` and ``moved``, ``(P, SIDE, SIDE)``, before or after moving: the larger."""
    target, source = _halved(still), _halved(moved)
    before, _ = _fit(target, source, _edges)
    # Affine: (x, y) → (scale · x + shift), in the units of ``affine_grid``, where a picture reaches from -1 to 1.
    scale, shift = torch.ones(len(still), 2), torch.zeros(len(still), 2)
    for _ in range(ROUNDS):
        _, moves = _fit(target, source, _shapes)
        moves = moves.clamp(-FARTHEST, FARTHEST) / (HALF / 2)
        shift = shift + scale * moves[:, :2]
        scale = scale * (1 + moves[:, 2:])
        affine = torch.cat([torch.diag_embed(scale), shift[:, :, None]], 2)
        grid = F.affine_grid(affine, [len(still), 1, SIDE, SIDE], align_corners=False)
        there = F.grid_sample(moved[:, None], grid, padding_mode="border", align_corners=False)
        source = _halved(there[:, 0])
    after, _ = _fit(target, source, _edges)
    return torch.maximum(before, after)


def _halved(pictures: Tensor) -> Tensor:
    return F.avg_pool2d(pictures[:, None], 2)[:, 0]


def _fit(target: Tensor, source: Tensor, terms: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Fit ``target`` by ``source`` and its tangents, ``(P, HALF, HALF)``, in what ``terms`` makes of them.

    Returns:
        The correlation of the fit, ``(P,)``, negative where light and dark must be exchanged for it; and the moves
        that it implies, ``(P, 4)``: pixels to the right and down, and those of a stretch at the edge.
    """
    down, right = torch.gradient(source, dim=(1, 2))
    columns = torch.stack([source, right, down, right * _PLACES, down * _PLACES[:, None], target], 1)
    made = terms(columns[..., 1:-1, 1:-1])
    known, wanted = made[:, :-1], made[:, -1]
    products = known @ known.mT
    # A trace of ridge, so that a picture without tangents can be solved for.
    products = products + torch.diag_embed(1e-3 * products.diagonal(dim1=1, dim2=2) + 1e-3)
    factors = torch.linalg.solve(products, known @ wanted[:, :, None])
    fitted = (known * factors).sum(1)
    correlation = (fitted * wanted).sum(1) / (fitted.norm(dim=1) * wanted.norm(dim=1) + 1e-6)
    contrast = factors[:, 0, 0]
    moves = factors[:, 1:, 0] / contrast.clamp(min=0.05)[:, None]
    return torch.where(contrast > 0, correlation, -correlation.abs()), moves


def _shapes(pictures: Tensor) -> Tensor:
    """Return pixels against their mean: in photographs, the lowest frequencies outweigh all others."""
    flat = pictures.flatten(2)
    return flat - flat.mean(2, keepdim=True)


def _edges(pictures: Tensor) -> Tensor:
    """Return the differences of neighbours: against the 1/f of photographs, all frequencies weigh about alike."""
    return torch.cat([pictures.diff(dim=-1).flatten(2), pictures.diff(dim=-2).flatten(2)], 2)


def _independent(pictures: Tensor) -> Tensor:
    """Count the independent values ``(P,)`` of pictures ``(P, SIDE, SIDE)``: what their energy is spread over.

    Over frequencies and over places, whichever is fewer (participation ratio, (Σ e)² / Σ e²): a straight edge has few
    of the one, and a bright corner few of the other. White noise has a third of its values.
    """
    spectrum = _COSINES @ _halved(pictures)[:, 1:-1, 1:-1] @ _COSINES.T * _HEIGHT
    spread = [part.square().flatten(1) for part in (spectrum, _COSINES.T @ spectrum @ _COSINES)]
    return torch.stack([part.sum(1).square() / (part.square().sum(1) + 1e-6) for part in spread]).amin(0)


def _fisher(correlation: Tensor) -> Tensor:
    # A copy's correlation is 1, whose z is infinite.
    return torch.atanh(correlation.clamp(-0.9999, 0.9999))
