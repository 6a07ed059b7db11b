"""``diptych embed``: the vectors of any number of pictures, in constant memory, resumed where it was killed.

Pictures go through the network in the source's order (``computing.py``). What comes out is kept in parts beside the
output (``parts.py``) and, at the end, joined into one file (``writer.py``) and moved to its place.
"""

import contextlib
import math
import os
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

from diptych.backbones.feature_choice import parse_choice
from diptych.backbones.folding import folded
from diptych.config import to_dict
from diptych.data.quarantine import Quarantine
from diptych.data.sources.source import Source
from diptych.data.stores.memory import nothing_read
from diptych.errors import ConfigError, DataError, UserError, check, suggest
from diptych.frozen import FrozenBackbone, load, open_finished, weights_digest
from diptych.progress import Terminal
from diptych.runs import SCHEMA_VERSION, sync_folder, writing_errors
from diptych.vectors.computing import Dtype, batch_for, compute
from diptych.vectors.files import pyarrow
from diptych.vectors.parts import Parts, claimed, differing, folder_of, is_moving
from diptych.vectors.pictures import Part, open_pictures
from diptych.vectors.table import SUFFIXES, VectorsCard, card_of
from diptych.vectors.writer import write_npy, write_parquet, write_quarantine


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Which pictures, which numbers, and how they are kept."""

    data_dir: str | None = None
    """Where the archive of a named data set lies."""
    part: Part = "all"
    """Which pictures of DATA: those to learn from (train), those to test on (test), or both."""
    limit: int | None = None
    """Embed this many pictures, drawn by a fixed seed."""
    features: str = "pooled"
    """What is taken from the backbone: pooled, multicrop, grid or tokens; or cells, the whole last feature map."""
    layer: str | None = None
    """The layer that features are taken from, a number or a name; the last if not given."""
    dtype: Dtype = "float32"
    """Of the numbers; float16 takes half the space and keeps three digits."""
    batch_size: int | None = None
    """Pictures at a time; chosen by their size if not given."""
    max_bad: float = 0.01
    """The share of the pictures that may be unreadable, 0..1; they are left out and listed."""
    overwrite: bool = False
    """Replace the output of an earlier command, and drop what an interrupted one left."""

    def __post_init__(self) -> None:
        if self.part not in get_args(Part):
            raise ConfigError(f"unknown --part '{self.part}'{suggest(self.part, get_args(Part))}")
        if self.dtype not in get_args(Dtype):
            raise ConfigError(f"unknown --dtype '{self.dtype}'{suggest(self.dtype, get_args(Dtype))}")
        parse_choice(self.features, self.layer)
        numbers = [name for name in ("limit", "batch_size") if getattr(self, name) is not None]
        check(self, "at least 1", lambda value: value >= 1, *numbers)
        check(self, "a share of the pictures, 0..1", lambda value: 0 <= value <= 1, "max_bad")


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """What came of embedding."""

    path: Path
    """The file of vectors: ``read_vectors`` reads it."""
    pictures: int
    """Vectors in it."""
    dim: int
    """Numbers of a vector."""
    left_out: int
    """Pictures that cannot be read."""
    quarantine: Path | None
    """Where those are listed; None where there are none."""
    resumed: int
    """Pictures that an interrupted command had done before this one."""
    seconds: float
    """That this command took to decode and embed the rest."""

    @property
    def pictures_per_second(self) -> float:
        """Decoded and embedded by this command."""
        done = self.pictures + self.left_out - self.resumed
        return done / self.seconds if self.seconds else 0.0

    @property
    def sentence(self) -> str:
        """For people."""
        text = f"{self.pictures:,} vectors of {self.dim:,} numbers"
        if self.resumed == self.pictures + self.left_out:
            text += ", which had been made before"
        else:
            text += f", {self.pictures_per_second:,.0f} pictures a second"
            text += f"; {self.resumed:,} pictures had been done before" if self.resumed else ""
        return text + (f"; {self.left_out:,} left out, see {self.quarantine}" if self.left_out else "")


def embed(
    run: str | Path,
    data: str,
    out: str | Path,
    config: EmbedConfig | None = None,
    *,
    device: str = "auto",
    terminal: Terminal | None = None,
) -> Embedded:
    """Write the vectors of all pictures of ``data`` to ``out``, or go on with it where it was interrupted.

    Where ``out`` holds these very vectors already, nothing is done.

    Args:
        run: a finished run.
        data: as for ``open_data``.
        out: ``NAME.parquet``, or ``NAME.npy``, beside which ``NAME.json`` and ``NAME.jsonl`` are written.
        config: everything else.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        terminal: where to speak; silent if None.

    Raises:
        RunFolderError: there is no such run, it has not finished, or its features are not finite; an interrupted
            command embeds something else there, or another one does so now; or the disk is full.
        DataError: the pictures cannot be read, more of them than may be; or ``out`` is there already, and something
            else.
        ConfigError: the network has no such features, or ``out`` is no name of a file of vectors.
    """
    config, terminal, path = config or EmbedConfig(), terminal or Terminal(quiet=True), Path(os.path.expanduser(out))
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"--out {out}: vectors are written to a file NAME.parquet or NAME.npy; give one of these")
    if path.suffix == ".parquet":
        pyarrow()
    with writing_errors(path, "choose another --out"):
        if path.is_dir():
            raise DataError(f"--out {out} is a folder: give a file NAME.parquet or NAME.npy")
        with contextlib.suppress(FileNotFoundError):
            # Refuses a name that is too long, now and not after hours: no file beside it will have a longer one.
            os.lstat(_listed(path).with_name(f".{_listed(path).name}.{os.getpid()}.tmp"))
    _, about = open_finished(run)
    backbone = load(run, device)
    choice = parse_choice(config.features, config.layer)
    shape = backbone.shape(choice)
    source, note = open_pictures(data, config.data_dir, config.part, about.preprocessing.tile, config.limit)
    card = VectorsCard(
        schema_version=SCHEMA_VERSION,
        weights=weights_digest(backbone.module),
        backbone=about.backbone,
        preprocessing=about.preprocessing,
        features=choice,
        run=str(run),
        data=data,
        data_dir=config.data_dir,
        part=config.part,
        fingerprint=source.fingerprint,
        diptych=metadata.version("diptych"),
        limit=config.limit,
        shape=shape if len(shape) > 1 else (),
    )
    with claimed(path):
        if not config.overwrite and not is_moving(path):
            there = _complete(path, _order(card, config.dtype), math.prod(shape))
            if there:
                return there
        terminal.say(note)
        return _made(path, card, backbone, source, config, terminal)


def _made(
    path: Path, card: VectorsCard, backbone: FrozenBackbone, source: Source, config: EmbedConfig, terminal: Terminal
) -> Embedded:
    """Make the output, or what is left to do of it."""
    parts = Parts(path, _order(card, config.dtype), overwrite=config.overwrite)
    resumed, began = parts.end, time.perf_counter()
    choice, made = card.features, card.preprocessing
    if parts.published is None:
        if resumed:
            terminal.say(f"going on after {resumed:,} of {len(source):,} pictures")
        size = config.batch_size or batch_for(made.image_size)
        quarantine = Quarantine(card.data, len(source), config.max_bad)
        if choice.layer is None and choice.kind in ("pooled", "multicrop"):  # others look into the network
            backbone.module = folded(backbone.module, (made.channels, made.image_size, made.image_size))
        compute(backbone, source, parts, choice, config.dtype, size, quarantine, terminal)
        if not parts.count:
            parts.remove()
            raise nothing_read(source, next(iter(parts.bad), None))
    seconds = time.perf_counter() - began
    _publish(path, parts, source, card)
    pictures, left_out = parts.published or (parts.count, len(parts.bad))
    parts.remove()
    return Embedded(
        path=path,
        pictures=pictures,
        dim=backbone.width(choice),
        left_out=left_out,
        quarantine=_listed(path) if left_out else None,
        resumed=min(resumed, pictures + left_out),
        seconds=seconds,
    )


def _order(card: VectorsCard, dtype: str) -> dict[str, Any]:
    """Return what decides the numbers and the rows, named for people."""
    return {
        "RUN": [card.weights, card.backbone, to_dict(card.preprocessing)],
        "DATA": card.fingerprint,
        "--part": card.part,
        "--limit": card.limit,
        "--features": card.features.kind,
        "--layer": card.features.layer,
        "--dtype": dtype,
        "version of diptych": card.diptych,
    }


def _complete(path: Path, order: dict[str, Any], dim: int) -> Embedded | None:
    """Return what an earlier command has made of the same order; None where nothing is there.

    Raises:
        DataError: something else is there.
    """
    there = next((file for file in (*_beside(path), path) if file.exists()), None)
    if there is None:
        return None
    card, dtype, pictures = None, "", 0
    with contextlib.suppress(UserError):  # of somebody else, or damaged
        card, dtype, pictures = card_of(path)
    other = differing(_order(card, dtype), order) if card and all(file.exists() for file in _beside(path)) else ""
    if card is None or other:
        what = f", with another {other}" if other else ""
        raise DataError(f"{there} is there already{what}: choose another --out, or add --overwrite to replace it")
    with contextlib.suppress(OSError):  # all that a command which was killed as it ended had left to do
        folder_of(path).rmdir()
    listed = _listed(path)
    left_out = len(listed.read_bytes().splitlines()) if listed.exists() else 0
    return Embedded(
        path=path,
        pictures=pictures,
        dim=dim,
        left_out=left_out,
        quarantine=listed if left_out else None,
        resumed=pictures + left_out,
        seconds=0.0,
    )


def _listed(path: Path) -> Path:
    """Return where the pictures that cannot be read are listed."""
    return path.with_name(path.name + ".quarantine.jsonl")


def _beside(path: Path) -> list[Path]:
    """Return the files that are written beside the vectors."""
    return [path.with_suffix(".jsonl"), path.with_suffix(".json")] if path.suffix == ".npy" else []


def _publish(path: Path, parts: Parts, source: Source, card: VectorsCard) -> None:
    """Join the parts and move the output to its place; nothing where that was done."""
    if parts.published is not None:
        return
    listed = _listed(path)
    if path.suffix == ".parquet":
        write_parquet(parts.folder / path.name, parts, source, card)
    else:
        write_npy(parts.folder / path.name, parts, parts.count, source, card)
    if parts.bad:
        write_quarantine(parts.folder / listed.name, parts.bad)
    parts.publish()
    with writing_errors(path):
        listed.unlink(missing_ok=True)
        if _beside(path):
            path.unlink(missing_ok=True)  # so that at no moment the old numbers lie beside the new names
        for file in (*([listed] if parts.bad else []), *_beside(path), path):
            os.replace(parts.folder / file.name, file)
        sync_folder(path.parent)
