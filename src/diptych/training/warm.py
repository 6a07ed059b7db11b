"""Where training begins, if not at random: the weights of another run, of a file, or timm's own (``--init-from``).

Only the backbone's weights are taken over; heads begin at random as ever. They are read once, before anything
expensive, and kept in the run folder: resuming, and evaluating against the beginning, need their source no more.
"""

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diptych.backbones.weights import Weights, Words, fitted, read_weights
from diptych.data.stores.digests import Digests, read_digests
from diptych.errors import ConfigError, UserError
from diptych.frozen import initial_backbone, open_finished, save_weights, serialized
from diptych.runs import RunFolder, writing
from diptych.training.config import RunConfig
from diptych.training.order import Choice, flags

TIMM = "timm-pretrained"
"""The word for timm's own weights: typing it asks for a download."""
FLAG = "--init-from"
"""That asks for weights, as messages name it."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """The weights that training begins with, and what is known of them."""

    init_from: str
    """What was given to ``--init-from``."""
    file: str
    """What was read: a path, or timm's name of its download."""
    sha256: str
    """Of that file; where timm has read it, of ``initial.safetensors``."""
    weights: Weights
    """Of the whole backbone, those included that had to begin at random."""
    notes: tuple[str, ...] = ()
    """Sentences for the log: what was left out or changed to fit."""
    normalised: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """The view settings (``mean``, ``std``, …) with which they were trained, where these are known."""
    seen: Digests | None = None
    """Hashes of all pictures they were trained on; None where these are not known."""

    def described(self) -> dict[str, Any]:
        """Return what ``run.json`` says of it."""
        return {"from": self.init_from, "file": self.file, "sha256": self.sha256, "notes": list(self.notes)}

    def keep(self, run: RunFolder) -> None:
        """Write the weights, and which pictures they know, into the run's folder."""
        save_weights(run.initial, self.weights)
        if self.seen is not None:
            with writing(run.initial_pictures) as temporary:
                temporary.write_bytes(self.seen.tobytes())


def read_start(config: RunConfig) -> Start | None:
    """Read the weights that ``config`` asks to begin with; None where it asks for random ones.

    Raises:
        UserError: there are none, they belong to another network or other pictures, or they cannot be read safely.
    """
    if config.init_from is None:
        return None
    if config.init_from == TIMM:
        return _from_timm(config)
    path = Path(config.init_from)
    try:
        is_run, is_there = path.is_dir(), path.exists()
    except OSError:  # too long for a name, say
        is_run = is_there = False
    if is_run:
        return _from_run(config, path)
    if not is_there:
        raise ConfigError(f"there is no {path}: --init-from takes a run folder, a .safetensors file, or {TIMM}")
    found, sha256 = read_weights(path, FLAG)
    weights, notes = _for_run(found, config, "give the --channels and --image-size that they were trained for")
    return Start(init_from=config.init_from, file=str(path), sha256=sha256, weights=weights, notes=notes)


def settings_of(init_from: str | None) -> dict[str, Any]:
    """Return the settings that a run shares with the one whose weights it begins with: a recipe chooses them alike.

    Args:
        init_from: as given to ``--init-from``.

    Returns:
        ``backbone``, ``image_size`` and ``channels`` of a run folder; nothing where it is a file, timm's, or None.

    Raises:
        RunFolderError: the folder is no finished run.
    """
    if init_from is None or init_from == TIMM or not Path(init_from).is_dir():
        return {}
    _, card = open_finished(init_from)
    made = card.preprocessing
    if card.backbone.startswith("patches"):
        raise ConfigError(
            f"{init_from} was made by patches, which has no weights to train: give --init-from another run"
        )
    return {"backbone": card.backbone, "image_size": made.image_size, "channels": made.channels}


def normalised_anew(start: Start, config: RunConfig) -> list[Choice]:
    """Say where views are normalised by other numbers than those that the weights were trained with.

    Args:
        start: the weights.
        config: of the run, its statistics measured.
    """
    theirs = {name: _rounded(values) for name, values in start.normalised.items()}
    ours = {name: _rounded(getattr(config.views, name)) for name in theirs}
    if ours == theirs:
        return []
    keep = shlex.join(flags({name: values for name, values in theirs.items() if values}))
    why = (
        f"what this run normalises by; the weights of {start.init_from} were trained with {keep}: type that to keep it"
    )
    return [Choice(what=shlex.join(flags({name: values for name, values in ours.items() if values})), why=why)]


def _rounded(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(float(f"{value:.4g}") for value in values)


def _from_run(config: RunConfig, path: Path) -> Start:
    folder, card = open_finished(path)
    made = card.preprocessing
    for flag, theirs, ours in (
        ("--backbone", card.backbone, config.backbone),
        ("--channels", made.channels, config.channels),
    ):
        if theirs != ours:
            raise ConfigError(f"--init-from {path} was trained with {flag} {theirs}, not {ours}: type {flag} {theirs}")
    found, sha256 = read_weights(folder.backbone_weights, FLAG)
    weights, notes = _for_run(found, config, f"type --image-size {made.image_size}, as they were trained with")
    if made.image_size != config.image_size:
        notes = (f"{path} has learned from pictures of {made.image_size} px, not {config.image_size} px", *notes)
    known = card.init_from is None or folder.initial_pictures.exists()
    # Pictures are recognised by their decoded pixels, which are others at another size, type or tile.
    alike = (made.image_size, made.pixels, made.tile) == (config.image_size, config.pixels, config.tile)
    return Start(
        init_from=str(config.init_from),
        file=str(folder.backbone_weights),
        sha256=sha256,
        weights=weights,
        notes=notes,
        normalised={name: getattr(made, name) for name in ("mean", "std", "low", "high")},
        seen=read_digests(folder) if known and alike else None,
    )


def _from_timm(config: RunConfig) -> Start:
    """Let timm find its weights, in its cache or by a download, and fit them to the channels of the pictures."""
    import timm

    model = config.backbone.removeprefix("timm:")
    if model == config.backbone:
        raise ConfigError(f"timm has no weights for {model}: choose a --backbone timm:MODEL, such as timm:resnet18")
    if timm.is_model(model) and not timm.is_model_pretrained(model):
        raise ConfigError(
            f"timm has no weights for {model}: choose another --backbone, or leave out --init-from {TIMM}"
        )
    _random(config)  # what cannot be built is refused before a download
    try:
        with torch.random.fork_rng(devices=[]):
            made: Any = timm.create_model(model, pretrained=True, num_classes=0, in_chans=config.channels)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"timm's weights for {model} cannot be had ({str(error).splitlines()[0]}): where there is no network, "
            "get them as a file elsewhere and type --init-from FILE.safetensors"
        ) from error
    traits: Mapping[str, Any] = made.pretrained_cfg
    weights, notes = _for_run(made.state_dict(), config, "choose another --image-size or --backbone")
    file = str(traits.get("hf_hub_id") or traits.get("url"))
    if config.channels != 3:
        notes = (f"timm fits the first layer of {file} from 3 channels to {config.channels}", *notes)
    return Start(
        init_from=TIMM,
        file=file,
        sha256=hashlib.sha256(serialized(weights)).hexdigest(),
        weights=weights,
        notes=notes,
        normalised={name: tuple(traits[name]) for name in ("mean", "std")} if config.channels == 3 else {},
    )


def _random(config: RunConfig) -> nn.Module:
    module, _, _ = initial_backbone(config.backbone, config.image_size, config.train.seed, config.channels)
    return module


def _for_run(found: Weights, config: RunConfig, advice: str) -> tuple[Weights, tuple[str, ...]]:
    """Turn what was read into weights for the whole backbone of a run; ``advice`` is for shapes that do not fit."""
    words = Words(
        flag=FLAG,
        source=str(config.init_from),
        backbone=config.backbone,
        image_size=config.image_size,
        channels=config.channels,
        advice=advice,
        other_network="choose the --backbone that it belongs to",
    )
    return fitted(found, _random(config), words)
