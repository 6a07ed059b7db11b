"""Where training begins, if not at random: the weights of another run, of a file, or timm's own (``--init-from``).

Only the backbone's weights are taken over; heads begin at random as ever. They are read once, before anything
expensive, and kept in the run folder: resuming, and evaluating against the beginning, need their source no more.
"""

import hashlib
import math
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models import VisionTransformer
from torch import Tensor, nn

from diptych.data.stores.digests import Digests, read_digests
from diptych.errors import ConfigError, UserError, typed
from diptych.frozen import initial_backbone, open_finished, save_weights, serialized
from diptych.runs import RunFolder, writing
from diptych.training.config import RunConfig
from diptych.training.order import Choice, flags

TIMM = "timm-pretrained"
"""The word for timm's own weights: typing it asks for a download."""
NAMED = 3
"""Weights that a sentence names; of more it tells the number."""

Weights = dict[str, Tensor]
"""A state dict."""


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
    if path.suffix != ".safetensors":
        raise ConfigError(_not_safetensors(path))
    found, sha256 = _read(path)
    weights, notes = _fitted(found, config, "give the --channels and --image-size that they were trained for")
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
    found, sha256 = _read(folder.backbone_weights)
    weights, notes = _fitted(found, config, f"type --image-size {made.image_size}, as they were trained with")
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
    weights, notes = _fitted(made.state_dict(), config, "choose another --image-size or --backbone")
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


def _read(path: Path) -> tuple[Weights, str]:
    """Read a safetensors file, and its SHA-256."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"--init-from: {path} cannot be read ({error.strerror})") from error
    try:
        return dict(sorted(load(content).items())), hashlib.sha256(content).hexdigest()
    except SafetensorError as error:
        raise ConfigError(
            f"--init-from: {path} is damaged or no safetensors file; write it again, or give another one"
        ) from error


def _not_safetensors(path: Path) -> str:
    made = path.with_suffix(".safetensors")
    convert = (
        "import torch, safetensors.torch as s; "
        f"s.save_file(torch.load({str(path)!r}, map_location='cpu', weights_only=True), {str(made)!r})"
    )
    return (
        f"--init-from {path} is no .safetensors file, and other formats can run code when they are read: where you "
        f"trust it, convert it with {typed('python -c', convert)}, and type --init-from {shlex.quote(str(made))}"
    )


def _fitted(found: Weights, config: RunConfig, advice: str) -> tuple[Weights, tuple[str, ...]]:
    """Turn what a file holds into weights for the whole backbone of a run.

    Args:
        found: what was read; the backbone's keys may carry one common prefix.
        config: of the run.
        advice: what to type where a shape does not fit.

    Returns:
        The state dict, and what was left out or changed, in sentences.

    Raises:
        ConfigError: weights are missing, have another shape, or tell of another network.
    """
    module = _random(config)
    wanted = module.state_dict()
    prefix = _prefix(found, wanted, config)
    ours = {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}
    _refuse_other_networks(ours, module, config)
    ours, notes = _adapted(ours, module, config)
    if left_out := [key for key in found if not key.startswith(prefix) or key.removeprefix(prefix) not in wanted]:
        notes.append(f"left out of {config.init_from}, because the backbone has none of it: {_named(left_out)}")
    for key, value in wanted.items():
        if key in ours and ours[key].shape != value.shape:
            raise ConfigError(
                f"--init-from {config.init_from} does not fit {config.backbone} for {config.image_size} px pictures of "
                f"{config.channels} channels: {key} is {tuple(ours[key].shape)}, not {tuple(value.shape)}; {advice}"
            )
        if key in ours and not (
            ours[key].is_floating_point() == value.is_floating_point() and ours[key].isfinite().all()
        ):
            raise ConfigError(
                f"--init-from {config.init_from}: {key} holds {_no_weights(ours[key])}, no weights: give another file"
            )
    return {key: ours.get(key, value).to(value.dtype) for key, value in wanted.items()}, tuple(notes)


def _no_weights(tensor: Tensor) -> str:
    return (
        "numbers that are not finite" if tensor.is_floating_point() else f"{tensor.dtype} values".replace("torch.", "")
    )


def _prefix(found: Weights, wanted: Weights, config: RunConfig) -> str:
    """Return what stands before the backbone's keys: nothing, ``module.``, ``backbone.`` and the like."""
    counts: Counter[str] = Counter()
    for key in found:
        parts = key.split(".")
        for cut in range(len(parts)):
            if ".".join(parts[cut:]) in wanted:
                counts["".join(f"{part}." for part in parts[:cut])] += 1
    most = max(counts.values(), default=0)
    best = [prefix for prefix, count in counts.items() if count == most] or [""]
    for own in ("", "backbone."):  # a checkpoint of ours may hold a momentum encoder besides
        if own in best:
            return own
    if len(best) > 1:
        raise ConfigError(
            f"--init-from {config.init_from} holds {config.backbone} {len(best)} times ({_named(best)}): write a file "
            "with one of them"
        )
    return best[0]


def _refuse_other_networks(ours: Weights, module: nn.Module, config: RunConfig) -> None:
    """Refuse a file that lacks weights, or has more of them inside the very parts that the backbone has."""
    wanted = module.state_dict()
    # PyTorch itself does without the count of a batch norm, which files of old versions lack.
    needed = [key for key in wanted if not key.endswith(".num_batches_tracked")]
    missing = [key for key in needed if key not in ours]
    if missing:
        raise ConfigError(
            f"--init-from {config.init_from} lacks {len(missing)} of the {len(needed)} weights of {config.backbone} "
            f"({_named(missing)}): choose the --backbone that it belongs to"
        )
    classifier = getattr(module, "pretrained_cfg", {}).get("classifier") or ()
    classifiers = tuple(f"{name}." for name in ([classifier] if isinstance(classifier, str) else classifier))
    parts = {key.partition(".")[0] for key in wanted}
    foreign = [
        key for key in ours if key not in wanted and key.partition(".")[0] in parts and not key.startswith(classifiers)
    ]
    if foreign:
        raise ConfigError(
            f"--init-from {config.init_from} holds {len(foreign)} weights that {config.backbone} has not "
            f"({_named(foreign)}): choose the --backbone that it belongs to"
        )


def _adapted(ours: Weights, module: nn.Module, config: RunConfig) -> tuple[Weights, list[str]]:
    """Change what depends on the size of the pictures; returns the weights, and a sentence for each change."""
    source, size, wanted = config.init_from, config.image_size, module.state_dict()
    if _has_small_stem(module) and ours["conv1.weight"].shape[2:] > wanted["conv1.weight"].shape[2:]:
        note = f"the first convolution begins at random: pictures of {size} px have a smaller one than {source}"
        return ours | {"conv1.weight": wanted["conv1.weight"]}, [note]
    if isinstance(module, VisionTransformer) and (resampled := _resampled(ours, module)) is not None:
        return ours | {"pos_embed": resampled}, [f"the position embeddings of {source} are resampled to {size} px"]
    return ours, []


def _has_small_stem(module: nn.Module) -> bool:
    """Whether ``backbones.build`` has given a network the stem for small pictures."""
    stem, pool = (getattr(module, name, None) for name in ("conv1", "maxpool"))
    return isinstance(stem, nn.Conv2d) and isinstance(pool, nn.Identity)


def _resampled(found: Weights, module: VisionTransformer) -> Tensor | None:
    """Resample the position embeddings of a square grid to the module's, by timm's way; None where they fit."""
    positions, own = found.get("pos_embed"), module.pos_embed
    if positions is None or own is None or positions.shape == own.shape or positions.shape[::2] != own.shape[::2]:
        return None
    others = 0 if module.no_embed_class else module.num_prefix_tokens
    cells = positions.shape[1] - others
    if cells < 1 or math.isqrt(cells) ** 2 != cells:
        return None
    grid = list(module.patch_embed.grid_size)
    resampled: Tensor = resample_abs_pos_embed(positions.float(), grid, num_prefix_tokens=others)
    return resampled


def _named(keys: list[str]) -> str:
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return ", ".join(keys[:NAMED]) + more
