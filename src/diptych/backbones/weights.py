"""Weights from a file for a network that is built: read safely, found under any one prefix, refused where they differ.

Used where training begins with them (``--init-from``) and where an evaluation compares with them (``--against``).
"""

import hashlib
import math
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from diptych.errors import ConfigError, typed

NAMED = 3
"""Weights that a sentence names; of more it tells the number."""

Weights = dict[str, Tensor]
"""A state dict."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """What messages say of the weights, of the network that they are for, and of what to type instead."""

    flag: str
    """That asked for them: ``--init-from``."""
    source: str
    """What was given to it."""
    backbone: str
    """Name of the network."""
    image_size: int
    """Pixels a side of its pictures."""
    channels: int
    """Of its pictures."""
    advice: str
    """What to type where a shape does not fit."""
    other_network: str
    """What to type where they belong to another network."""


def read_weights(path: Path, flag: str, label: str = "") -> tuple[Weights, str]:
    """Read a safetensors file.

    Args:
        path: of the file.
        flag: that asked for it, for messages.
        label: what the user typed between the flag and the path: ``imagenet:``.

    Returns:
        Its tensors, sorted by key, and its SHA-256.

    Raises:
        ConfigError: it is in another format, cannot be read, or is damaged.
    """
    if path.suffix != ".safetensors":
        raise ConfigError(_not_safetensors(path, f"{flag} {label}"))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{flag}: {path} cannot be read ({error.strerror})") from error
    try:
        return dict(sorted(load(content).items())), hashlib.sha256(content).hexdigest()
    except SafetensorError as error:
        raise ConfigError(
            f"{flag}: {path} is damaged or no safetensors file; write it again, or give another one"
        ) from error


def _not_safetensors(path: Path, before: str) -> str:
    made = path.with_suffix(".safetensors")
    convert = (
        "import torch, safetensors.torch as s; "
        f"s.save_file(torch.load({str(path)!r}, map_location='cpu', weights_only=True), {str(made)!r})"
    )
    return (
        f"{before}{path} is no .safetensors file, and other formats can run code when they are read: where you "
        f"trust it, convert it with {typed('python -c', convert)}, and type {before}{shlex.quote(str(made))}"
    )


def fitted(found: Weights, module: nn.Module, words: Words) -> tuple[Weights, tuple[str, ...]]:
    """Turn what a file holds into weights for a whole network.

    Args:
        found: what was read; the network's keys may carry one common prefix.
        module: the network, as ``build_backbone`` made it: what begins at random keeps its weights.
        words: for messages and notes.

    Returns:
        The state dict, and what was left out or changed, in sentences.

    Raises:
        ConfigError: weights are missing, have another shape, or tell of another network.
    """
    wanted = module.state_dict()
    prefix = _prefix(found, wanted, words)
    ours = {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}
    _refuse_other_networks(ours, module, words)
    ours, notes = _adapted(ours, module, words)
    if left_out := [key for key in found if not key.startswith(prefix) or key.removeprefix(prefix) not in wanted]:
        notes.append(f"left out of {words.source}, because the backbone has none of it: {_named(left_out)}")
    for key, value in wanted.items():
        if key in ours and ours[key].shape != value.shape:
            raise ConfigError(
                f"{words.flag} {words.source} does not fit {words.backbone} for {words.image_size} px pictures of "
                f"{words.channels} channels: {key} is {tuple(ours[key].shape)}, not {tuple(value.shape)}; "
                f"{words.advice}"
            )
        if key in ours and not (
            ours[key].is_floating_point() == value.is_floating_point() and ours[key].isfinite().all()
        ):
            raise ConfigError(
                f"{words.flag} {words.source}: {key} holds {_no_weights(ours[key])}, no weights: give another file"
            )
    return {key: ours.get(key, value).to(value.dtype) for key, value in wanted.items()}, tuple(notes)


def _no_weights(tensor: Tensor) -> str:
    return (
        "numbers that are not finite" if tensor.is_floating_point() else f"{tensor.dtype} values".replace("torch.", "")
    )


def _prefix(found: Weights, wanted: Weights, words: Words) -> str:
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
            f"{words.flag} {words.source} holds {words.backbone} {len(best)} times ({_named(best)}): write a file "
            "with one of them"
        )
    return best[0]


def _refuse_other_networks(ours: Weights, module: nn.Module, words: Words) -> None:
    """Refuse a file that lacks weights, or has more of them inside the very parts that the backbone has."""
    wanted = module.state_dict()
    # PyTorch itself does without the count of a batch norm, which files of old versions lack.
    needed = [key for key in wanted if not key.endswith(".num_batches_tracked")]
    missing = [key for key in needed if key not in ours]
    if missing:
        raise ConfigError(
            f"{words.flag} {words.source} lacks {len(missing)} of the {len(needed)} weights of {words.backbone} "
            f"({_named(missing)}): {words.other_network}"
        )
    classifier = getattr(module, "pretrained_cfg", {}).get("classifier") or ()
    classifiers = tuple(f"{name}." for name in ([classifier] if isinstance(classifier, str) else classifier))
    parts = {key.partition(".")[0] for key in wanted}
    foreign = [
        key for key in ours if key not in wanted and key.partition(".")[0] in parts and not key.startswith(classifiers)
    ]
    if foreign:
        raise ConfigError(
            f"{words.flag} {words.source} holds {len(foreign)} weights that {words.backbone} has not "
            f"({_named(foreign)}): {words.other_network}"
        )


def _adapted(ours: Weights, module: nn.Module, words: Words) -> tuple[Weights, list[str]]:
    """Change what depends on the size of the pictures; returns the weights, and a sentence for each change."""
    source, size, wanted = words.source, words.image_size, module.state_dict()
    if _has_small_stem(module) and ours["conv1.weight"].shape[2:] > wanted["conv1.weight"].shape[2:]:
        note = f"the first convolution begins at random: pictures of {size} px have a smaller one than {source}"
        return ours | {"conv1.weight": wanted["conv1.weight"]}, [note]
    if "pos_embed" in ours and (resampled := _resampled(ours, module)) is not None:
        return ours | {"pos_embed": resampled}, [f"the position embeddings of {source} are resampled to {size} px"]
    return ours, []


def _has_small_stem(module: nn.Module) -> bool:
    """Whether ``backbones.build`` has given a network the stem for small pictures."""
    stem, pool = (getattr(module, name, None) for name in ("conv1", "maxpool"))
    return isinstance(stem, nn.Conv2d) and isinstance(pool, nn.Identity)


def _resampled(found: Weights, module: nn.Module) -> Tensor | None:
    """Resample a vision transformer's position embeddings of a square grid, by timm's way; None where they fit."""
    from timm.layers.pos_embed import resample_abs_pos_embed
    from timm.models import VisionTransformer

    if not isinstance(module, VisionTransformer):
        return None
    positions, own = found["pos_embed"], module.pos_embed
    if own is None or positions.shape == own.shape or positions.shape[::2] != own.shape[::2]:
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
