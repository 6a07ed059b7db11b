"""Checkpoints that are whole or not there, and that are verified before they are used.

``checkpoints/step-000123/`` holds ``weights.safetensors`` (the method's weights), ``state.pt`` (optimizer, random
generator; read with ``weights_only=True``) and ``meta.json`` (step, loss, and the SHA-256 of the other two). The folder
is written under a temporary name and renamed; only then does the link ``last`` move to it.
"""

import errno
import hashlib
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor

from diptych.errors import RunFolderError, typed
from diptych.runs import read_json, sync_folder, write_json, writing_errors


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands, besides its weights: what the loop carries from one step to the next."""

    step: int
    """Steps taken."""
    epoch_loss: float = 0.0
    """Sum of the losses of the current epoch's steps."""
    best_loss: float | None = None
    """Lowest mean loss of an epoch so far."""
    epochs_without_gain: int = 0
    """Epochs since ``best_loss``; early stopping counts them."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint in memory."""

    weights: dict[str, Tensor]
    state: dict[str, Any]
    progress: Progress


def save(folder: Path, weights: dict[str, Tensor], state: dict[str, Any], progress: Progress, *, best: bool) -> Path:
    """Write a checkpoint, point ``last`` (and ``best``) at it, and delete all but these and the one before.

    Args:
        folder: the run's ``checkpoints`` folder.
        weights: the method's state dict.
        state: what else is needed to go on: tensors, numbers, strings, lists and dicts of these.
        progress: where the run stands.
        best: whether this is the best checkpoint so far.

    Raises:
        RunFolderError: the disk is full or the folder may not be written; the earlier checkpoints are untouched.
    """
    final = folder / f"step-{progress.step:06d}"
    temporary = folder / f".{final.name}.{os.getpid()}.tmp"
    with writing_errors(final):
        folder.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        try:
            _write_files(temporary, weights, state, progress)
            if final.exists():  # a resumed run that was cut off after this very step
                shutil.rmtree(final)
            os.rename(temporary, final)
        except BaseException as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if isinstance(error, RuntimeError) and "write" in str(error):  # how torch.save reports a full disk
                raise OSError(errno.ENOSPC, str(error)) from error
            raise
        sync_folder(folder)
        for link in ("best", "last") if best else ("last",):  # `best` first: `last` must never know of one that is not
            _point(folder / link, final.name)
    _delete_unused(folder)
    return final


def _write_files(folder: Path, weights: dict[str, Tensor], state: dict[str, Any], progress: Progress) -> None:
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    (folder / "weights.safetensors").write_bytes(serialize(on_cpu))  # save_file's would be readable by its owner only
    torch.save(state, folder / "state.pt")
    sums = {name: _sha256(folder / name) for name in ("weights.safetensors", "state.pt")}
    for name in sums:
        with open(folder / name, "rb") as file:
            os.fsync(file.fileno())
    write_json(folder / "meta.json", {"schema_version": 1, **asdict(progress), "sha256": sums})


def _point(link: Path, target: str) -> None:
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, link)
    sync_folder(link.parent)


def _delete_unused(folder: Path) -> None:
    """Keep what ``last`` and ``best`` point to, and the one before ``last``: the way on, should that be damaged."""
    used = {os.readlink(link) for link in (folder / "last", folder / "best") if link.is_symlink()}
    found = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    complete = sorted((path for path in found if path.name.startswith("step-")), key=lambda path: path.stat().st_mtime)
    used |= {path.name for path in complete[-2:]}
    for path in found:
        if path.name not in used:
            shutil.rmtree(path)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint and verify it against its checksums.

    Args:
        path: the folder of one checkpoint, or the link ``last`` or ``best``.

    Raises:
        RunFolderError: it is missing, cut short or altered.
    """
    if not path.exists():
        raise RunFolderError(f"there is no checkpoint {path}: this run cannot be resumed; start again with --overwrite")
    try:
        meta = read_json(path / "meta.json")
        progress = Progress(**{name: meta[name] for name in Progress.__dataclass_fields__})
        sums = {name: meta["sha256"][name] for name in ("weights.safetensors", "state.pt")}
    except (RunFolderError, KeyError, TypeError) as error:
        raise _damaged(path, "meta.json") from error
    for name, expected in sums.items():
        if not (path / name).is_file() or _sha256(path / name) != expected:
            raise _damaged(path, name)
    state = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
    return Checkpoint(load_file(path / "weights.safetensors"), state, progress)


def _damaged(path: Path, name: str) -> RunFolderError:
    """Say what is damaged, and how to go on: from another complete checkpoint, or from the beginning."""
    damaged = path.resolve()
    said = f"checkpoint {damaged} is damaged ({name} is cut short or altered)"
    others = sorted((p for p in damaged.parent.glob("step-*") if p != damaged), key=lambda p: int(p.name[5:]))
    if not others:
        return RunFolderError(f"{said}; it is the only one, so start again with --overwrite")
    relink = typed("ln -sfn", others[-1].name, damaged.parent / (path.name if path.is_symlink() else "last"))
    return RunFolderError(f"{said}; to go on from the one before it, type {relink} and resume again")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
