"""What a run offers to choose from: each checkpoint that it still has, and the backbone that it left behind.

``run.json`` says how to rebuild the network around their weights, and which pictures they were learned from.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diptych import checkpoint
from diptych.config import from_dict
from diptych.data.decoding.pixels import PixelFormat
from diptych.distributed import World, pick_device
from diptych.errors import ConfigError, RunFolderError, typed
from diptych.frozen import BackboneCard, FrozenBackbone, Preprocessing, initial_backbone, load, serialized
from diptych.methods import METHODS
from diptych.runs import SCHEMA_VERSION, RunFolder
from diptych.views.config import ViewsConfig

FINISHED = "backbone"
"""Name of what a run left behind, where no checkpoint of it is left that is the same."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What ``run.json`` says of a run, as far as choosing from it goes."""

    folder: RunFolder
    method: str
    card: BackboneCard
    """How to rebuild its network; the number of features is not known before that and 0 here."""
    views: ViewsConfig
    data: str
    data_dir: str | None
    limit: int | None
    fingerprint: str
    """Of the pictures that it learned from."""

    @property
    def format(self) -> tuple[int, PixelFormat]:
        """Pixels a side and kind of the pictures that its network takes."""
        return self.card.preprocessing.image_size, self.card.preprocessing.pixels


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One representation that a run offers."""

    name: str
    """``step-000390``, or ``backbone``."""
    step: int | None
    """Steps taken by then; None where it is not known."""
    finished: bool
    """Whether it is what ``diptych.load`` gives of this run."""
    backbone: FrozenBackbone


def read_origin(run: str | Path) -> Origin:
    """Read what a run is from its ``run.json``.

    Raises:
        RunFolderError: there is no such run, it is damaged, or there is nothing to choose from yet.
    """
    folder = RunFolder.open(run)
    found = folder.read_card()
    if not folder.backbone.is_file() and not _steps(folder):
        raise RunFolderError(
            f"{folder.path} has neither a checkpoint nor a backbone yet, so there is nothing to choose from: go on "
            f"with {typed('diptych pretrain --resume', folder.path)}"
        )
    try:
        return _origin(folder, found["config"], found["data"])
    except (KeyError, TypeError, ConfigError) as error:
        raise RunFolderError(
            f"{folder.config} is damaged, or another version of diptych wrote it ({error}): leave {folder.path} out, "
            "or pretrain again with --overwrite"
        ) from error


def _origin(folder: RunFolder, config: dict[str, Any], data: dict[str, Any]) -> Origin:
    views = from_dict(ViewsConfig, config["views"])
    preprocessing = Preprocessing(
        image_size=config["image_size"],
        channels=config["channels"],
        depth=config["depth"],
        tile=config["tile"],
        mean=views.mean,
        std=views.std,
        low=views.low,
        high=views.high,
    )
    card = BackboneCard(
        schema_version=SCHEMA_VERSION,
        backbone=config["backbone"],
        num_features=0,
        seed=config["train"]["seed"],
        preprocessing=preprocessing,
    )
    return Origin(
        folder=folder,
        method=config["method"]["name"],
        card=card,
        views=views,
        data=config["data"],
        data_dir=config["data_dir"],
        limit=config["limit"],
        fingerprint=data["fingerprint"],
    )


def candidates(origin: Origin, device: str, on_bad: Callable[[str], None]) -> Iterator[Candidate]:
    """Yield what a run offers, one network at a time, in the order of training.

    A checkpoint with the very weights that the run left behind and these weights are one candidate.

    Args:
        origin: the run.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        on_bad: told of each checkpoint that cannot be used, in one sentence.

    Raises:
        RunFolderError: what the run left behind is damaged.
    """
    left = load(origin.folder.path, device) if origin.folder.backbone.is_file() else None
    marked = _digest(left.module.state_dict()) if left else None
    met = False
    for path in _steps(origin.folder):
        try:
            point = checkpoint.load(path)
            backbone = _rebuilt(origin, point, device)
        except RunFolderError as error:
            on_bad(f"{path} is left out: {error}")
            continue
        same = _digest(backbone.module.state_dict()) == marked
        met = met or same
        yield Candidate(name=path.name, step=point.progress.step, finished=same, backbone=backbone)
    if left and not met:
        yield Candidate(name=FINISHED, step=None, finished=True, backbone=left)


def _steps(folder: RunFolder) -> list[Path]:
    """Return the checkpoints of a run in the order in which they were written."""
    found = {path: checkpoint.NAME.fullmatch(path.name) for path in folder.checkpoints.glob("step-*") if path.is_dir()}
    return sorted(
        (path for path, match in found.items() if match),
        key=lambda path: tuple(int(number) for number in path.name.removeprefix("step-").split(".")),
    )


def _rebuilt(origin: Origin, point: checkpoint.Checkpoint, device: str) -> FrozenBackbone:
    """Put the weights of a checkpoint into the network that its method would leave behind."""
    made = origin.card.preprocessing
    module, features, _ = initial_backbone(origin.card.backbone, made.image_size, origin.card.seed, made.channels)
    method = point.state.get("method")
    if method not in METHODS:
        raise RunFolderError(f"{point.path} names no method that this version of diptych knows")
    begin = kept_prefix(method)
    weights = {name.removeprefix(begin): w for name, w in point.weights.items() if name.startswith(begin)}
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise RunFolderError(f"{point.path} belongs to another network than {origin.folder.config} names") from error
    return FrozenBackbone(module, replace(origin.card, num_features=features), pick_device(device, World()))


def kept_prefix(method: str) -> str:
    """Return how the names of the weights begin, in a checkpoint of ``method``, that the run would leave behind.

    It is ``backbone.``, or what leads to a momentum encoder's copy. Where that lies depends neither on the backbone nor
    on the heads' sizes, so both are stand-ins without memory.
    """
    with torch.device("meta"):
        made = METHODS[method]().build(nn.Linear(1, 64), 64)
    return next(f"{name}." for name, module in made.named_modules() if module is made.kept)


def _digest(weights: dict[str, Tensor]) -> bytes:
    return hashlib.sha256(serialized(weights)).digest()
