"""Who meets under the probes: the run, and what it is compared with (``against.py``), loaded and described."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diptych.backbones.weights import Words, fitted, read_weights
from diptych.data.stores.digests import Digests, read_digests
from diptych.distributed import World, pick_device
from diptych.errors import ConfigError, printable
from diptych.evaluation.against import FLAG, Asked, Kind
from diptych.frozen import (
    BackboneCard,
    FrozenBackbone,
    Preprocessing,
    initial_backbone,
    load,
    load_initial,
    open_finished,
    random_twin,
    serialized,
)
from diptych.runs import RunFolder


@dataclass(frozen=True, kw_only=True, eq=False)
class Contender:
    """What the probes are given, and what is known of it."""

    key: str
    """Its name in JSON, unique: letters, digits, ``_``, ``.`` and ``-``."""
    name: str
    """For people; of ``initial``, where its weights came from."""
    kind: Kind
    network: str | None
    """As ``--backbone`` names it; None for pixels."""
    backbone: FrozenBackbone | None
    """None for pixels."""
    weights_hash: str | None
    """SHA-256 over the network's name and its weights, on which features depend; None for pixels."""
    preprocessing: Preprocessing
    """How pictures are to be brought to it; for pixels, as for the run."""
    seen: Digests
    """Hashes of the pictures that it is known to have learned from, as its own preprocessing stores them."""
    unknown: str | None = None
    """Weights of which nobody knows what pictures they had learned from before; None where ``seen`` is all."""
    notes: tuple[str, ...] = ()
    """Sentences for the log."""


def open_contenders(run: str | Path, against: Sequence[Asked] | None, device: str = "auto") -> list[Contender]:
    """Load the run, and all that it is compared with.

    Args:
        run: a finished run's folder.
        against: as ``parse_against`` returns them; None for the beginning where it was not random, the random
            network, and pixels.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Returns:
        ``pretrained`` first, then the others in their order.

    Raises:
        RunFolderError: a run has not finished, or its files are damaged.
        ConfigError: what was asked for is not there, belongs to another network, or takes other pictures.
    """
    folder, card = open_finished(run)
    if against is None:
        words: list[Kind] = ["random", "pixels"] if card.init_from is None else ["initial", "random", "pixels"]
        against = [Asked(kind=word, key=word) for word in words]
    pretrained = _run(Asked(kind="pretrained", key="pretrained", path=folder.path), device)
    return [pretrained, *(_open(asked, folder, card, device) for asked in against)]


def _open(asked: Asked, run: RunFolder, card: BackboneCard, device: str) -> Contender:
    if asked.kind == "weights":
        return _weights(asked, run, card, device)
    if asked.kind == "run":
        assert asked.path is not None
        if asked.path.resolve() == run.path.resolve():
            raise ConfigError(f"{FLAG} {asked.path} is the run that is evaluated: leave it out")
        other = _run(asked, device)
        _refuse_other_pictures(asked.path, other.preprocessing, run.path, card.preprocessing)
        return other
    if asked.kind == "pixels":
        return Contender(
            key=asked.key,
            name="raw pixels",
            kind="pixels",
            network=None,
            backbone=None,
            weights_hash=None,
            preprocessing=card.preprocessing,
            seen=np.empty(0, np.uint64),
        )
    if asked.kind == "initial":
        return _initial(asked, run, card, device)
    if asked.kind == "scratch" and card.backbone.startswith("patches"):
        raise ConfigError(
            f"{run.path} was made by patches, which has no weights to train: leave out scratch and --probes finetune"
        )
    name = "same network, from scratch" if asked.kind == "scratch" else "same network, untrained"
    return _contender(asked, card, random_twin(run.path, device), name=name)


def _run(asked: Asked, device: str) -> Contender:
    """Open a finished run, the evaluated one or another."""
    assert asked.path is not None
    folder, card = open_finished(asked.path)
    return _contender(
        asked,
        card,
        load(folder.path, device),
        name=asked.key,
        seen=read_digests(folder),
        unknown=_unknown(folder, card),
    )


def _initial(asked: Asked, run: RunFolder, card: BackboneCard, device: str) -> Contender:
    backbone = load_initial(run.path, device)
    if backbone is None:
        raise ConfigError(f"{run.path} began at random, not with other weights: type {FLAG} random for its beginning")
    known = run.initial_pictures.exists()
    return _contender(
        asked,
        card,
        backbone,
        name=printable(str(backbone.init_from)),
        seen=np.fromfile(run.initial_pictures, np.uint64) if known else None,
        unknown=_unknown(run, card),
    )


def _weights(asked: Asked, run: RunFolder, card: BackboneCard, device: str) -> Contender:
    """Put the weights of a file into the run's own network."""
    assert asked.path is not None
    made = card.preprocessing
    found, _ = read_weights(asked.path, FLAG, f"{asked.key}:")
    module, _, _ = initial_backbone(card.backbone, made.image_size, card.seed, made.channels)
    words = Words(
        flag=FLAG,
        source=f"{asked.key}:{asked.path}",
        backbone=card.backbone,
        image_size=made.image_size,
        channels=made.channels,
        advice=f"give weights for the pictures of {run.path}",
        other_network=f"give weights of the network that {run.path} has",
    )
    weights, notes = fitted(found, module, words)
    module.load_state_dict(weights)
    return _contender(
        asked,
        card,
        FrozenBackbone(module, card, pick_device(device, World())),
        name=asked.key,
        unknown=printable(str(asked.path)),
        notes=(*notes, f"pictures are normalised for {asked.key} as for {run.path}"),
    )


def _contender(
    asked: Asked,
    card: BackboneCard,
    backbone: FrozenBackbone,
    *,
    name: str,
    seen: Digests | None = None,
    unknown: str | None = None,
    notes: tuple[str, ...] = (),
) -> Contender:
    # The name decides what is computed with the weights: patches:1024 and patches:1024-flip have the same ones.
    state = hashlib.sha256(card.backbone.encode() + b"\0" + serialized(backbone.module.state_dict()))
    return Contender(
        key=asked.key,
        name=name,
        kind=asked.kind,
        network=card.backbone,
        backbone=backbone,
        weights_hash=state.hexdigest(),
        preprocessing=card.preprocessing,
        seen=np.empty(0, np.uint64) if seen is None else seen,
        unknown=unknown,
        notes=notes,
    )


def _unknown(run: RunFolder, card: BackboneCard) -> str | None:
    """Return where the weights came from that a run began with, if nobody knows what they had learned from."""
    return None if card.init_from is None or run.initial_pictures.exists() else printable(card.init_from)


def _refuse_other_pictures(other: Path, theirs: Preprocessing, run: Path, ours: Preprocessing) -> None:
    """Refuse a run that cannot be shown the very pictures that the evaluated one is shown."""
    if theirs.tile != ours.tile:
        cut = ["whole pictures" if made.tile is None else f"squares of {made.tile} px" for made in (theirs, ours)]
        raise ConfigError(
            f"{FLAG} {other} has learned from {cut[0]} and {run} from {cut[1]}: compare runs with the same --tile"
        )
    is_float = [made.depth == "float32" for made in (theirs, ours)]
    convertible = theirs.channels == ours.channels or {theirs.channels, ours.channels} == {1, 3}  # see pixels.convert
    if is_float[0] != is_float[1] or not convertible:
        raise ConfigError(
            f"{FLAG} {other} takes {theirs.pixels} and {run} takes {ours.pixels}: no picture can be shown to both; "
            "compare runs of the same --channels and --depth"
        )
