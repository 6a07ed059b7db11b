"""Which of a network's numbers describe a picture: its own features, or others that it computes on the way to them.

- ``pooled``: what the network returns: the mean over its last cells, its class token, or what else it ends in.
- ``multicrop``: the mean of ``pooled`` over ten views of the picture, the four corners and the centre and their mirror
  images, as Krizhevsky et al. average predictions (NeurIPS 2012). Deviations: features are averaged, not predictions;
  a crop has 7/8 of the picture's side, as their 224 of 256 pixels, and is enlarged bilinearly to the whole size, which
  networks with position embeddings ask for. Ten times the cost.
- ``grid``: the last cells averaged over 2 × 2 quarters, ``4 · C`` numbers: roughly where things are, too.
- ``tokens``: the mean of the last patch tokens, without the class token and registers; of transformers, and of
  ``patches``, whose nine cells it averages.
- ``cells``: the last cells themselves, flattened; of a transformer its patch tokens in their places. Many numbers:
  ``C · h · w``.

*Cells* are the positions ``(B, C, h, w)`` of the last feature map, or patch tokens in their places. timm's last cells
are those of ``forward_features``: after a transformer's last norm, but before what some networks have between cells
and features (ConvNeXt's norm, MobileNetV3's last layer), so that the mean of the grid is ``pooled`` only where a
network ends in a plain mean.

``layer`` takes the cells of an inner layer instead. ``pooled`` is then their mean; in a plain transformer that returns
its class token it is that layer's class token, and everything goes through the last norm, as DINO reads inner layers
(arXiv 2104.14294).
"""

import inspect
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.backbones.cifar_resnet import CifarResNetV2
from diptych.backbones.patches import GRID, PatchNetwork
from diptych.errors import ConfigError, suggest

FeatureKind: TypeAlias = Literal["pooled", "multicrop", "grid", "tokens", "cells"]

CROP = 7 / 8
"""Side of a crop, as a fraction of the picture's."""
QUARTERS = 2
"""Cells a side that a grid is averaged to."""


@dataclass(frozen=True, kw_only=True)
class FeatureChoice:
    """What ``FrozenBackbone.embed`` returns; as it stands, what the network returns."""

    kind: FeatureKind = "pooled"
    layer: int | str | None = None
    """Name or number of a layer, counted from 0, or from the end with -1; None is what the network itself ends in."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(FeatureKind):
            raise ConfigError(f"unknown --features '{self.kind}'{suggest(self.kind, get_args(FeatureKind))}")


POOLED = FeatureChoice()


def parse_choice(features: str = "pooled", layer: str | None = None) -> FeatureChoice:
    """Read what was typed after ``--features`` and ``--layer``.

    Args:
        features: pooled, multicrop, grid, tokens or cells.
        layer: a whole number or a name; which ones there are is known only to the network.

    Raises:
        ConfigError: there are no such features.
    """
    is_number = layer is not None and layer.removeprefix("-").isdecimal()
    return FeatureChoice(kind=features, layer=int(layer) if layer is not None and is_number else layer)  # type: ignore[arg-type]


def features_of(module: nn.Module, values: Tensor, choice: FeatureChoice) -> Tensor:
    """Compute the chosen features.

    Args:
        module: a network in evaluation mode.
        values: ``(B, C, S, S)`` float32, normalised.
        choice: which ones.

    Returns:
        ``(B, D)``; a grid's numbers are ordered by channel, then row, then column. Of cells ``(B, C, h, w)``.

    Raises:
        ConfigError: the network has none of them; the text says what it has.
    """
    if choice.kind == "pooled":
        return _pooled(module, values, choice.layer)
    if choice.kind == "multicrop":
        return torch.stack([_pooled(module, view, choice.layer) for view in ten_crops(values)]).mean(dim=0)
    if choice.kind == "tokens" and not (isinstance(module, PatchNetwork) or hasattr(module, "num_prefix_tokens")):
        raise ConfigError("--features tokens: this backbone has no patch tokens: choose pooled, multicrop or grid")
    cells = _last_cells(module, values) if choice.layer is None else _inner(module, values, choice.layer)[0]
    if choice.kind == "cells":
        return cells
    if choice.kind == "tokens":
        return cells.mean(dim=(2, 3))
    if min(cells.shape[2:]) < QUARTERS:
        raise ConfigError(
            f"--features grid: this backbone has {cells.shape[2]} × {cells.shape[3]} cells here, too few for a grid of "
            f"{QUARTERS} × {QUARTERS}: choose pooled or multicrop, or an earlier --layer"
        )
    return F.adaptive_avg_pool2d(cells, QUARTERS).flatten(1)


def ten_crops(values: Tensor) -> Iterator[Tensor]:
    """Yield four corners and the centre of pictures ``(B, C, S, S)``, enlarged to S, each with its mirror image."""
    size = values.shape[-1]
    side = round(CROP * size)
    far, middle = size - side, (size - side) // 2
    for top, left in ((0, 0), (0, far), (far, 0), (far, far), (middle, middle)):
        corner = values[:, :, top : top + side, left : left + side]
        crop = F.interpolate(corner, size=(size, size), mode="bilinear")
        yield crop
        yield crop.flip(3)


def layers(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the layers that ``layer`` can choose, first to last; empty where there is no choice."""
    if isinstance(module, CifarResNetV2):
        return ("stem", "group1", "group2", "group3")
    if not hasattr(module, "forward_intermediates"):
        return ()
    infos: Any = module.feature_info
    return tuple(str(info["module"]) for info in infos)


def _pooled(module: nn.Module, values: Tensor, layer: int | str | None) -> Tensor:
    if layer is None:
        features: Tensor = module(values)
        return features
    cells, prefix = _inner(module, values, layer)
    if prefix is not None and getattr(module, "global_pool", None) == "token":
        return prefix[:, 0]
    return cells.mean(dim=(2, 3))


def _last_cells(module: nn.Module, values: Tensor) -> Tensor:
    """Return the last cells ``(B, C, h, w)``."""
    if isinstance(module, PatchNetwork):
        by_cell: Tensor = module(values).unflatten(1, (GRID, GRID, -1))
        return by_cell.permute(0, 3, 1, 2)
    if isinstance(module, CifarResNetV2):
        last: Tensor = module.final(module.blocks(module.stem(values)))
        return last
    network: Any = module
    found = network.forward_features(values) if hasattr(module, "forward_features") else None
    if isinstance(found, Tensor) and found.ndim == 4:
        return found.permute(0, 3, 1, 2) if getattr(module, "output_fmt", "NCHW") == "NHWC" else found
    if isinstance(found, Tensor) and found.ndim == 3:
        tokens = found[:, getattr(module, "num_prefix_tokens", 0) :]
        side = math.isqrt(tokens.shape[1])
        if side**2 == tokens.shape[1]:
            return tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)
    raise ConfigError("this backbone has no map of cells to choose --features from: choose pooled or multicrop")


def _inner(module: nn.Module, values: Tensor, layer: int | str) -> tuple[Tensor, Tensor | None]:
    """Return the cells ``(B, C, h, w)`` of a layer, and the class token and registers ``(B, P, C)`` beside them."""
    place = _place(layer, layers(module))
    if isinstance(module, CifarResNetV2):
        cells: Tensor = module.stem(values)
        for block in module.blocks[: place * len(module.blocks) // 3]:
            cells = block(cells)
        return cells, None
    network: Any = module
    # Plain transformers alone, all of whose layers are of one kind, give prefixes, and apply the last norm to any.
    is_plain = "return_prefix_tokens" in inspect.signature(network.forward_intermediates).parameters
    more = {"norm": True, "return_prefix_tokens": network.num_prefix_tokens > 0} if is_plain else {}
    (found,) = network.forward_intermediates(
        values, indices=[place], stop_early=True, intermediates_only=True, output_fmt="NCHW", **more
    )
    return found if isinstance(found, tuple) else (found, None)


def _place(layer: int | str, names: tuple[str, ...]) -> int:
    if not names:
        raise ConfigError("this backbone has no layers to choose from: leave out --layer")
    if isinstance(layer, str):
        if layer not in names:
            raise ConfigError(f"--layer: this backbone has no '{layer}'{suggest(layer, names)}")
        return names.index(layer)
    if not -len(names) <= layer < len(names):
        raise ConfigError(
            f"--layer must be from {-len(names)} to {len(names) - 1} ({names[0]} to {names[-1]}), not {layer}"
        )
    return layer % len(names)
