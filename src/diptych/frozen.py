"""A trained backbone with the preprocessing it was trained with: load it, embed pictures.

``backbone.safetensors`` holds the weights, ``backbone.json`` all that is needed to rebuild the network around them.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from diptych.backbones.build import build_backbone
from diptych.backbones.feature_choice import POOLED, FeatureChoice, features_of
from diptych.backbones.pyramid import Pyramid, pyramid
from diptych.config import from_dict, to_dict
from diptych.data.decoding.decode import decode, fit, to_pixels
from diptych.data.decoding.pixels import BadPicture, Depth, PixelFormat, Pixels, convert, format_of
from diptych.distributed import World, pick_device
from diptych.errors import ConfigError, DataError, RunFolderError, typed
from diptych.runs import RunFolder, read_versioned, write_json, writing
from diptych.seeding import WEIGHTS, generator
from diptych.views.ops import normalize, scaled
from diptych.views.pipeline import scaling

Picture = str | Path | Image.Image | NDArray[Any]
"""A file, a Pillow picture, or an array ``(H, W, C)`` uint8, uint16 or float32."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What turns a picture into the network's input."""

    image_size: int
    """Pixels a side: the shorter side is resized to this, then the centre is cropped."""
    mean: tuple[float, ...]
    """Subtracted from each channel of values 0..1."""
    std: tuple[float, ...]
    """Divides each channel afterwards."""
    channels: int = 3
    depth: Depth = "uint8"
    tile: int | None = None
    """Pixels a side of the squares that pictures were cut into; None where they were taken whole."""
    low: tuple[float, ...] = ()
    """What becomes 0 in each channel; empty for whole numbers, where it is 0."""
    high: tuple[float, ...] = ()
    """What becomes 1 in each channel; empty for whole numbers, where it is 255 or 65535."""

    @property
    def pixels(self) -> PixelFormat:
        """What every picture is brought to."""
        return PixelFormat(channels=self.channels, depth=self.depth)


@dataclass(frozen=True, kw_only=True)
class BackboneCard:
    """What ``backbone.json`` says: how to rebuild the network, trained or as it was before training."""

    schema_version: int
    backbone: str
    num_features: int
    seed: int
    """The run's seed: from it, ``random_twin`` rebuilds the random weights that belong to the run."""
    preprocessing: Preprocessing
    init_from: str | None = None
    """Where the weights of ``initial.safetensors``, with which training began, came from; None: it began at random."""


def prepared(pictures: Tensor, made: Preprocessing, device: torch.device) -> Tensor:
    """Turn stored pictures ``(B, C, S, S)`` into what a network takes: float32, normalised, on ``device``."""
    low, span = scaling(pictures.dtype, made.channels, made.low, made.high)
    unit = scaled(pictures.to(device), low, span).clamp_(0, 1)  # as views are, for values not met in training
    return normalize(unit, made.mean, made.std)


class FrozenBackbone:
    """A network in evaluation mode, without gradients, and its preprocessing."""

    def __init__(self, module: nn.Module, card: BackboneCard, device: torch.device) -> None:
        self.module = module.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
        self.preprocessing = card.preprocessing
        self.num_features = card.num_features
        self.init_from = card.init_from
        self.device = device

    @torch.inference_mode()
    def embed(
        self, images: Tensor | Sequence[Picture], batch_size: int = 256, features: FeatureChoice = POOLED
    ) -> Tensor:
        """Turn pictures into feature vectors.

        Args:
            images: ``(N, C, S, S)`` in the preprocessing's channels, type and ``image_size``; or files, Pillow
                pictures or ``(H, W, C)`` arrays of any size. A run with ``tile`` has learned from squares of that
                size: cut pictures likewise first.
            batch_size: pictures at a time; it changes the memory needed and nothing else.
            features: which numbers of the network; by default those that it returns.

        Returns:
            ``(N, width(features))`` float32 on the CPU, not normalised; cells are in the order of ``shape``.

        Raises:
            DataError: the tensor has another shape or type.
            BadPicture: a file cannot be read.
            ConfigError: the network has no such features.
        """
        if isinstance(images, str | Path):
            raise DataError(f"embed() takes a list of files: type embed(['{images}'])")
        pictures = images if isinstance(images, Tensor) else self._fit(images)
        size, wanted = self.preprocessing.image_size, self.preprocessing.pixels
        shape = (wanted.channels, size, size)
        if pictures.dtype != getattr(torch, wanted.depth) or pictures.shape[1:] != shape:
            raise DataError(
                f"embed() takes {wanted.depth} pictures (N, {', '.join(map(str, shape))}) or a list of files, not "
                f"{str(pictures.dtype).removeprefix('torch.')} {tuple(pictures.shape)}"
            )
        if not len(pictures):
            return torch.empty(0, self.width(features))
        parts = torch.split(pictures, batch_size)
        return torch.cat([self._features(part, features).flatten(1) for part in parts])

    @torch.no_grad()
    def features(self, images: Tensor | Sequence[Picture], batch_size: int = 64) -> Pyramid:
        """Turn pictures into maps with strides, from fine to coarse, for segmentation and detection.

        Args:
            images: ``(N, C, H, W)`` in the preprocessing's channels and type, of any sides that are multiples of the
                coarsest stride; or files, Pillow pictures or ``(H, W, C)`` arrays of any size, which are brought to
                ``image_size``. One or more.
            batch_size: pictures at a time.

        Returns:
            Maps ``(N, C_i, h_i, w_i)`` float32 on the CPU; they take far more memory than vectors.

        Raises:
            DataError: the tensor has another number of channels or type, or sides that do not divide.
            BadPicture: a file cannot be read.
            ConfigError: the network has no maps.
        """
        if isinstance(images, str | Path):
            raise DataError(f"features() takes a list of files: type features(['{images}'])")
        pictures = images if isinstance(images, Tensor) else self._fit(images)
        wanted = self.preprocessing.pixels
        kind = (pictures.dtype, pictures.ndim, pictures.shape[1:2])
        if kind != (getattr(torch, wanted.depth), 4, (wanted.channels,)):
            raise DataError(
                f"features() takes {wanted.depth} pictures (N, {wanted.channels}, H, W) or a list of files, not "
                f"{str(pictures.dtype).removeprefix('torch.')} {tuple(pictures.shape)}"
            )
        if not len(pictures):
            raise DataError("features() takes one picture or more, and was given none")
        parts = [
            pyramid(self.module, prepared(part, self.preprocessing, self.device))
            for part in torch.split(pictures, batch_size)
        ]
        levels = zip(*(part.maps for part in parts), strict=True)
        return replace(parts[0], maps=tuple(torch.cat([cells.cpu() for cells in level]) for level in levels))

    @torch.inference_mode()
    def width(self, features: FeatureChoice = POOLED) -> int:
        """Return how many numbers a picture gets; other features than the default are computed once to count them.

        Raises:
            ConfigError: the network has no such features.
        """
        return self.num_features if features == POOLED else math.prod(self.shape(features))

    @torch.inference_mode()
    def shape(self, features: FeatureChoice) -> tuple[int, ...]:
        """Return the shape of a picture's features before they are one row: ``(D,)``, of cells ``(C, h, w)``.

        Raises:
            ConfigError: the network has no such features.
        """
        size, wanted = self.preprocessing.image_size, self.preprocessing.pixels
        black = torch.zeros(1, wanted.channels, size, size, dtype=getattr(torch, wanted.depth))
        return tuple(self._features(black, features).shape[1:])

    def _features(self, pictures: Tensor, choice: FeatureChoice) -> Tensor:
        values = prepared(pictures, self.preprocessing, self.device)
        return features_of(self.module, values.contiguous(memory_format=torch.channels_last), choice).float().cpu()

    def _fit(self, images: Sequence[Picture]) -> Tensor:
        size, wanted = self.preprocessing.image_size, self.preprocessing.pixels
        fitted = [self._fit_one(image, size, wanted) for image in images]
        if not fitted:
            return torch.empty((0, wanted.channels, size, size), dtype=getattr(torch, wanted.depth))
        return torch.from_numpy(np.stack(fitted))

    def _fit_one(self, image: Picture, size: int, wanted: PixelFormat) -> Pixels:
        pixels = _as_array(image, size)
        try:
            return fit(convert(pixels, wanted, str(image)), size)
        except BadPicture as bad:
            if isinstance(image, str | Path):
                raise
            raise DataError(
                f"this backbone takes pictures of {wanted}, as it was trained on, not of {format_of(pixels)}"
            ) from bad


def _as_array(picture: Picture, size: int) -> Pixels:
    if isinstance(picture, str | Path):
        return decode(Path(picture), str(picture), size)
    if isinstance(picture, Image.Image):
        try:
            return to_pixels(picture)
        except ValueError as error:
            raise DataError(f"cannot use a picture of mode {picture.mode}: {error}") from error
    if picture.dtype not in ("uint8", "uint16", "float32") or picture.ndim != 3:
        raise DataError(
            f"pictures are uint8, uint16 or float32 arrays (H, W, C), gray ones (H, W, 1), not {picture.dtype} "
            f"{picture.shape}"
        )
    if not np.isfinite(picture).all():
        raise DataError("pictures have finite values, and some are NaN or infinite; fill them with a number")
    return np.ascontiguousarray(picture.transpose(2, 0, 1))


def initial_backbone(
    name: str, image_size: int, seed: int, channels: int = 3
) -> tuple[nn.Module, int, tuple[str, ...]]:
    """Build a backbone with the random weights that belong to ``seed``; the global generator is left as it was.

    Returns:
        The module, its number of features, and what was adapted to the pictures.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, WEIGHTS).initial_seed())
        built = build_backbone(name, image_size=image_size, channels=channels)
    return built.module, built.num_features, built.notes


def save_backbone(run: RunFolder, module: nn.Module, card: BackboneCard) -> None:
    """Write ``backbone.safetensors`` and ``backbone.json``, each whole or not at all."""
    save_weights(run.backbone_weights, module.state_dict())
    write_json(run.backbone, to_dict(card))


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a safetensors file whole or not at all."""
    with writing(path) as temporary:
        temporary.write_bytes(serialized(weights))


def serialized(weights: Mapping[str, Tensor]) -> bytes:
    """Return the bytes of the safetensors file that holds ``weights``: the same for the same weights."""
    # safetensors' save_file would make a file that only its owner may read.
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})


def weights_digest(module: nn.Module) -> str:
    """Return a hash of all weights and buffers, by name: it tells whose features two sets of vectors are.

    Returns:
        64 hexadecimal digits of SHA-256, the same on every device and however the tensors lie in memory.
    """
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def load(run: str | Path, device: str = "auto") -> FrozenBackbone:
    """Load the backbone of a finished run.

    Args:
        run: the run folder.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        RunFolderError: there is no such run, it has not finished, or its files are damaged.
    """
    folder, card = open_finished(run)
    again = "write it again with " + typed("diptych pretrain --resume", folder.path)
    return FrozenBackbone(_with_weights(card, folder.backbone_weights, again), card, pick_device(device, World()))


def load_initial(run: str | Path, device: str = "auto") -> FrozenBackbone | None:
    """Load the same network as training began, where it did not begin with random weights; None where it did.

    Raises:
        RunFolderError: there is no such run, it has not finished, or its files are damaged.
    """
    folder, card = open_finished(run)
    if card.init_from is None:
        return None
    again = "what the run came to can only be compared with it: put it back, or pretrain again with a new --out"
    return FrozenBackbone(_with_weights(card, folder.initial, again), card, pick_device(device, World()))


def _with_weights(card: BackboneCard, path: Path, advice: str) -> nn.Module:
    module, _, _ = _random(card)
    try:
        module.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise RunFolderError(f"{path} is damaged or belongs to another network; {advice}") from error
    return module


def random_twin(run: str | Path, device: str = "auto") -> FrozenBackbone:
    """Rebuild the same network with the random weights of the run's seed: the baseline of every evaluation.

    Training began with them, unless the run has an ``init_from``.

    Raises:
        RunFolderError: there is no such run, or it has not finished.
    """
    _, card = open_finished(run)
    module, _, _ = _random(card)
    return FrozenBackbone(module, card, pick_device(device, World()))


def _random(card: BackboneCard) -> tuple[nn.Module, int, tuple[str, ...]]:
    made = card.preprocessing
    return initial_backbone(card.backbone, made.image_size, card.seed, made.channels)


def open_finished(run: str | Path) -> tuple[RunFolder, BackboneCard]:
    """Open the folder of a finished run and read what its backbone is.

    Raises:
        RunFolderError: there is no such run, it has not finished, or ``backbone.json`` is damaged.
    """
    folder = RunFolder.open(run)
    if not folder.backbone.is_file():
        raise RunFolderError(
            f"{folder.path} holds no backbone yet: the run has not finished; go on with "
            + typed("diptych pretrain --resume", folder.path)
        )
    values: dict[str, Any] = read_versioned(folder.backbone)
    try:
        return folder, from_dict(BackboneCard, values)
    except ConfigError as error:
        raise RunFolderError(
            f"{folder.backbone} is damaged ({error}); write it again with "
            + typed("diptych pretrain --resume", folder.path)
        ) from error
