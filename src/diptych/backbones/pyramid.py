"""Maps instead of one vector: what a network sees where, from fine to coarse, for segmentation and detection.

- Own CIFAR ResNets: ``stem``, ``group1``, ``group2``, ``group3``. Inner groups end in plain sums, as blocks before
  activation do; the last one has the batch norm and the ReLU that the network itself ends in.
- timm's convolutional and hierarchical networks: the layers that timm calls features, as ``features_only`` gives them.
- timm's plain vision transformers: one map, the patch tokens after the last norm, in their places. A network that was
  built here interpolates its position embeddings to the picture's cells, so that any multiple of the patch will do.
- Others all of whose layers have one stride (XCiT, mixers): the last layer alone.
- ``patches``: its 3 × 3 cells, however large the picture.

Dense use wants larger pictures than training did: objects then cover more cells, and what a convolution or attention
has learned of its surroundings stays as it is.
"""

import contextlib
import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diptych.backbones.cifar_resnet import CifarResNetV2
from diptych.backbones.feature_choice import layers
from diptych.backbones.patches import GRID, PatchNetwork
from diptych.errors import ConfigError, DataError, suggest

_OF_SHAPES = re.compile(r"\b(sizes?|shapes?)\b")
"""What torch says where a network cannot take pictures of other sides than it was built for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pyramid:
    """Maps of the same pictures, the finest first."""

    maps: tuple[Tensor, ...]
    """Each ``(B, C, h, w)`` float32."""
    strides: tuple[int, ...]
    """Pixels of the picture from one cell of a map to the next, down and across."""
    names: tuple[str, ...]
    """Of the layers that the maps come from."""


def pyramid(module: nn.Module, values: Tensor) -> Pyramid:
    """Compute a network's maps; gradients flow where the network has not been frozen.

    Args:
        module: as ``build_backbone`` makes it.
        values: ``(B, C, H, W)`` float32, normalised. H and W are multiples of the coarsest map's stride; for
            ``patches``, equal, and no smaller than the pictures that it was built for.

    Raises:
        DataError: the pictures do not divide into the network's cells; the text says of what sides must be multiples.
        ConfigError: the network has no maps.
    """
    if isinstance(module, PatchNetwork):
        return _patch_cells(module, values)
    if not (isinstance(module, CifarResNetV2) or hasattr(module, "forward_intermediates")):
        raise ConfigError("this backbone has no maps, which segmentation and detection need: choose another --backbone")
    height, width = values.shape[2:]
    patch = _patch(module)
    if height % patch or width % patch:
        raise _indivisible(module, values)
    try:
        maps = _maps(module, values)
    except DataError as error:
        coarsest = _coarsest(module, values)
        if coarsest is None or not (height % coarsest or width % coarsest):
            raise
        raise _indivisible(module, values) from error
    strides = tuple(round(height / cells.shape[2]) for cells in maps)
    known = {1, *_reductions(module)}
    for cells, stride in zip(maps, strides, strict=True):
        whole = (cells.shape[2] * stride, cells.shape[3] * stride) == (height, width)
        # 3 cells of 72 px may have a stride of 32, not 24: the last of them looks beyond the edge.
        if not whole or (stride not in known and stride & (stride - 1)):
            raise _indivisible(module, values)
    # A single cell may be a part of one, which its shape does not tell.
    if 1 in maps[-1].shape[2:] and (coarsest := _coarsest(module, values)) and (height % coarsest or width % coarsest):
        raise _indivisible(module, values)
    if len(set(strides)) == 1:
        maps, strides = maps[-1:], strides[-1:]
    return Pyramid(maps=tuple(cells.float() for cells in maps), strides=strides, names=layers(module)[-len(maps) :])


class PyramidBackbone(nn.Module):
    """A network as the body of a feature pyramid network: pictures → name → map, for torchvision's detectors.

    Args:
        module: as ``build_backbone`` makes it, or the ``module`` of a loaded run; its parameters are trained unless
            ``requires_grad`` is off.
        image_size: pixels a side of a picture that it takes.
        channels: of the pictures.
        names: the layers whose maps are given, finest first; all if None.

    Raises:
        ConfigError: the network has no maps, or none of such a name.
        DataError: ``image_size`` is no multiple of the coarsest stride.
    """

    def __init__(
        self, module: nn.Module, *, image_size: int, channels: int = 3, names: Sequence[str] | None = None
    ) -> None:
        super().__init__()
        self.module = module
        with _at_rest(module):
            found = pyramid(module, _black(module, image_size, channels))
        unknown = [name for name in names or () if name not in found.names]
        if unknown:
            raise ConfigError(f"this backbone has no map '{unknown[0]}'{suggest(unknown[0], found.names)}")
        taken = [place for place, name in enumerate(found.names) if names is None or name in names]
        self.names = tuple(found.names[place] for place in taken)
        """Keys of what ``forward`` returns, in its order."""
        self.out_channels = tuple(found.maps[place].shape[1] for place in taken)
        """Channels of each map: the ``in_channels_list`` of torchvision's ``FeaturePyramidNetwork``."""
        self.strides = tuple(found.strides[place] for place in taken)
        """Pixels from one cell of each map to the next."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the maps ``(B, C, h, w)`` float32 of normalised pictures ``(B, C, H, W)``, the finest first.

        Raises:
            DataError: as ``pyramid``.
        """
        found = pyramid(self.module, images)
        maps = dict(zip(found.names, found.maps, strict=True))
        return {name: maps[name] for name in self.names}


@contextlib.contextmanager
def _at_rest(module: nn.Module) -> Iterator[None]:
    """Let a network compute without gradients, and without moving the statistics of its norms."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part in training:
            part.training = True


def _black(module: nn.Module, side: int, channels: int) -> Tensor:
    device = next((tensor.device for tensor in module.state_dict().values()), torch.device("cpu"))
    return torch.zeros(1, channels, side, side, device=device)


def _maps(module: nn.Module, values: Tensor) -> list[Tensor]:
    return _of_groups(module, values) if isinstance(module, CifarResNetV2) else _of_timm(module, values)


def _of_groups(module: CifarResNetV2, values: Tensor) -> list[Tensor]:
    maps = [module.stem(values)]
    each = len(module.blocks) // 3
    for group in range(3):
        maps.append(module.blocks[group * each : (group + 1) * each](maps[-1]))
    return [*maps[:-1], module.final(maps[-1])]


def _of_timm(module: nn.Module, values: Tensor) -> list[Tensor]:
    network: Any = module
    # All layers of a plain transformer are of one size, and one is enough.
    more = {"indices": 1, "norm": True} if _is_plain_transformer(module) else {}
    try:
        found: list[Tensor] = network.forward_intermediates(values, intermediates_only=True, output_fmt="NCHW", **more)
    except (AssertionError, IndexError, RuntimeError) as error:  # some networks take pictures of one size alone
        said = str(error).partition("\n")[0].strip(" .")
        if isinstance(error, RuntimeError) and not _OF_SHAPES.search(said):
            raise  # such as too little memory
        height, width = values.shape[2:]
        raise DataError(
            f"this backbone takes no pictures of {height} × {width} px{f' ({said})' if said else ''}: give pictures of "
            "the size that it was built for, or choose another --backbone"
        ) from error
    return found


def _is_plain_transformer(module: nn.Module) -> bool:
    """Whether all its layers are of one kind; those networks alone know prefix tokens."""
    network: Any = module
    return "return_prefix_tokens" in inspect.signature(network.forward_intermediates).parameters


def _patch_cells(module: PatchNetwork, values: Tensor) -> Pyramid:
    height, width = values.shape[2:]
    if height != width or height < module.side:
        raise DataError(
            f"patches takes square pictures of {module.side} px or more, not {height} × {width} px: give others"
        )
    cells: Tensor = module(values).unflatten(1, (GRID, GRID, -1)).permute(0, 3, 1, 2)
    return Pyramid(maps=(cells.float(),), strides=(round(height / GRID),), names=("cells",))


def _reductions(module: nn.Module) -> list[int]:
    """Return the strides of a timm network's layers as timm has them: before a small stem took their place."""
    infos: Any = getattr(module, "feature_info", ())
    return [int(info["reduction"]) for info in infos]


def _patch(module: nn.Module) -> int:
    """Return the pixels a side of a transformer's patches, 1 for other networks, and where patches overlap."""
    found: Any = getattr(getattr(module, "patch_embed", None), "patch_size", 1)
    patch = int(found[0] if isinstance(found, Sequence) else found)
    return 1 if any(stride % patch for stride in _reductions(module)) else patch


def _coarsest(module: nn.Module, values: Tensor) -> int | None:
    """Return the stride of the coarsest map, as a small picture that divides shows it; None where it takes none."""
    if not isinstance(module, CifarResNetV2) and _is_plain_transformer(module):
        return _patch(module)
    side = 2 * max(_reductions(module), default=4)
    try:
        with _at_rest(module):
            return side // _maps(module, _black(module, side, values.shape[1]))[-1].shape[2]
    except DataError:
        return None


def _indivisible(module: nn.Module, values: Tensor) -> DataError:
    height, width = values.shape[2:]
    coarsest = _coarsest(module, values)
    helps = coarsest is not None and (height % coarsest or width % coarsest)
    advice = f"give sides that are multiples of {coarsest} px" if helps else "give others, or choose another --backbone"
    return DataError(f"pictures of {height} × {width} px do not divide into this backbone's cells: {advice}")
