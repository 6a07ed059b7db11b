"""Checkpoints that are whole or not there, and that are verified before they are used.

``checkpoints/step-000123/`` holds ``weights.safetensors`` (the method's weights), ``state.pt`` (optimizer and whatever
else is needed to go on; read with ``weights_only=True``) and ``meta.json``: where the run stood, with size and SHA-256
of the other two, and a SHA-256 of itself.

The folder is written under a temporary name and renamed; only then do links move to it, ``last`` after all others: it
never knows of one that they miss. What a link points to is never written over: a step that is saved once more, because
the run had gone back behind it, goes to ``step-000123.2``. So a kill at any moment leaves a ``last`` that loads.

A checkpoint is put together in memory before any of it is written, which takes as much memory as it will take space:
then its size is known, and a disk that is too small for it is told in bytes.
"""

import contextlib
import errno
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as deserialized
from safetensors.torch import save as serialized
from torch import Tensor, nn

from diptych.config import from_dict
from diptych.errors import ConfigError, RunFolderError, byte_size, typed
from diptych.hardware import is_alive
from diptych.runs import sync_folder, writing_errors

SCHEMA_VERSION = 2
"""Of a checkpoint; another one is refused."""
WEIGHTS, STATE, META = "weights.safetensors", "state.pt", "meta.json"
NAME = re.compile(r"step-(\d{6,})(?:\.(\d+))?")
"""Of a checkpoint's folder: the steps taken, and which one it is where a step was saved more than once."""
NAMED = 3
"""Weights that a sentence names; of more it tells the number."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands, besides its weights: what the loop carries from one step to the next."""

    step: int
    """Steps taken."""
    epoch_loss: float = 0.0
    """Sum of the losses of the current epoch's steps."""
    epoch_steps: int = 0
    """Steps of the current epoch that were not skipped."""
    best: float | None = None
    """Of the best epoch so far, by ``TrainConfig.watched``: the higher the better."""
    epochs_without_gain: int = 0
    """Epochs since the best; early stopping counts them."""
    skipped: int = 0
    """Steps left out because their loss or gradient was not a finite number."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A verified checkpoint in memory."""

    path: Path
    weights: dict[str, Tensor]
    state: dict[str, Any]
    progress: Progress


class _Damaged(Exception):
    """A checkpoint that cannot be used; its text says what is wrong with it."""


# Writing


def save(
    folder: Path,
    weights: Mapping[str, Tensor],
    state: dict[str, Any],
    progress: Progress,
    *,
    links: Sequence[str] = (),
    keep: int = 2,
) -> Path:
    """Write a checkpoint, point ``last`` at it, and delete those that are needed no more.

    Args:
        folder: the run's ``checkpoints`` folder.
        weights: the method's state dict.
        state: what else is needed to go on: tensors, numbers, strings, lists and dicts of these.
        progress: where the run stands.
        links: names that shall point to this checkpoint, besides ``last``.
        keep: newest checkpoints that are kept, 1 or more, besides those that a link points to. With 2, the one before
            ``last`` is the way on should that be damaged.

    Returns:
        The checkpoint's folder.

    Raises:
        RunFolderError: the disk is full or the folder may not be written; the earlier checkpoints are untouched.
    """
    contents = _contents(weights, state, progress)
    name = f"step-{progress.step:06d}"
    with _disk_told(folder / name, contents):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _remove_leftovers(folder)  # first: a disk may be full of them
            final = _place(folder, name)
            _write(final, contents)
            for link in (*links, "last"):
                _point(folder / link, final.name)
            _delete_unused(folder, keep)
        finally:
            _remove_leftovers(folder)
    return final


def _contents(weights: Mapping[str, Tensor], state: dict[str, Any], progress: Progress) -> dict[str, memoryview]:
    """Return the bytes of a checkpoint's files by their names."""
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    contents = {WEIGHTS: memoryview(serialized(on_cpu)), STATE: buffer.getbuffer()}
    meta: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "progress": asdict(progress),
        "files": {name: _measured(content) for name, content in contents.items()},
    }
    text = json.dumps({**meta, "sha256": _seal(meta)}, indent=2, allow_nan=False) + "\n"
    return {**contents, META: memoryview(text.encode())}


def _measured(content: bytes | memoryview) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _seal(meta: dict[str, Any]) -> str:
    """Return the SHA-256 of what ``meta.json`` says."""
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _write(final: Path, contents: Mapping[str, memoryview]) -> None:
    temporary = _temporary(final)
    temporary.mkdir()
    for name, content in contents.items():
        with open(temporary / name, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    sync_folder(temporary)
    if final.exists():  # no link knows it: a kill came before
        _discard(final)
    os.rename(temporary, final)
    sync_folder(final.parent)


def _place(folder: Path, name: str) -> Path:
    """Return where a checkpoint may be written: nowhere that a link points to."""
    linked = _links(folder).values()
    names = itertools.chain([name], (f"{name}.{number}" for number in itertools.count(2)))
    return folder / next(name for name in names if name not in linked)


def _point(link: Path, target: str) -> None:
    temporary = _temporary(link)
    temporary.symlink_to(target)
    os.replace(temporary, link)
    sync_folder(link.parent)


def go_back(folder: Path, link: str) -> int:
    """Let ``last`` point where another link does, and give up all that was written after it.

    Links to what is given up go with it.

    Returns:
        The step that the run stands at now.

    Raises:
        RunFolderError: the folder may not be written.
    """
    links = _links(folder)
    target = links[link]
    later = [path.name for path in _complete(folder) if _order(path.name) > _order(target)]
    with writing_errors(folder / "last"):
        for other in links:
            if links[other] in later and other != "last":
                (folder / other).unlink()
        _point(folder / "last", target)
        for name in later:
            _discard(folder / name)
    return _order(target)[0]


def _delete_unused(folder: Path, keep: int) -> None:
    linked = _links(folder).values()
    for path in _complete(folder)[:-keep]:
        if path.name not in linked:
            _discard(path)


def _discard(path: Path) -> None:
    """Delete a checkpoint: it is gone at once, and what it held thereafter."""
    aside = _temporary(path.with_name(f"{path.name}.old"))
    os.rename(path, aside)
    shutil.rmtree(aside, ignore_errors=True)


def _links(folder: Path) -> dict[str, str]:
    return {path.name: os.readlink(path) for path in folder.iterdir() if path.is_symlink()}


def _complete(folder: Path) -> list[Path]:
    """Return all checkpoints in ``folder``, the newest last."""
    found = (path for path in folder.glob("step-*") if NAME.fullmatch(path.name) and path.is_dir())
    return sorted(found, key=lambda path: _order(path.name))


def _order(name: str) -> tuple[int, int]:
    match = NAME.fullmatch(name)
    assert match
    return int(match[1]), int(match[2] or 1)


# Temporary names


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")


def _remove_leftovers(folder: Path) -> None:
    """Remove what this process, or a killed one of this machine, has begun to write or to delete."""
    for path in folder.glob(f".*.{socket.gethostname()}.*.tmp"):
        process = path.name.split(".")[-2]
        if process != str(os.getpid()) and is_alive(process):
            continue
        if path.is_symlink():
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path, ignore_errors=True)


# Full disks


@contextlib.contextmanager
def _disk_told(path: Path, contents: Mapping[str, memoryview]) -> Iterator[None]:
    """Turn a refusal to write into one line that says how much space it takes."""
    try:
        yield
    except OSError as error:
        with writing_errors(path, _advice(error, path.parent, contents)):
            raise


def _advice(error: OSError, folder: Path, contents: Mapping[str, memoryview]) -> str:
    """Return what to do about a disk that is too small; nothing where that is not the reason."""
    again = "type the command again (a run with a checkpoint goes on with `diptych pretrain --resume RUN`)"
    if error.errno == errno.EFBIG:
        largest = byte_size(max(map(len, contents.values())))
        return (
            f"allow files of {largest} (`ulimit -f unlimited`, where it is not the disk that allows none) and {again}"
        )
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return ""
    needed = f"a checkpoint takes {byte_size(sum(map(len, contents.values())))}"
    if error.errno == errno.ENOSPC:  # of a quota it is not known
        with contextlib.suppress(OSError):
            needed += f", {byte_size(shutil.disk_usage(folder).free)} are free"
    return f"free some space ({needed}) and {again}"


# Reading


def load(path: Path) -> Checkpoint:
    """Read a checkpoint and verify it against its checksums.

    Args:
        path: the folder of one checkpoint, or a link to one, such as ``last``.

    Raises:
        RunFolderError: it is missing, cut short, altered, moved here from elsewhere, or of another version.
    """
    found = path.parent / os.readlink(path) if path.is_symlink() else path
    if not found.is_dir():
        advice = _way_on(path, found) or ": this run cannot be resumed; start again with --overwrite"
        raise RunFolderError(f"there is no checkpoint {path}{advice}")
    try:
        return _read(found)
    except _Damaged as error:
        advice = _way_on(path, found) or "; it is the only one, so start again with --overwrite"
        raise RunFolderError(f"checkpoint {found} is damaged ({error}){advice}") from error


def _way_on(path: Path, damaged: Path) -> str:
    """Say how to go on from the newest whole checkpoint besides a damaged one; nothing where there is none."""
    link = path.parent / ("last" if NAME.fullmatch(path.name) else path.name)
    for other in reversed(_complete(path.parent)):
        if other.name != damaged.name and _is_whole(other):
            return f"; to go on from the one before it, type {typed('ln -sfn', other.name, link)} and resume again"
    return ""


def _is_whole(path: Path) -> bool:
    try:
        _read(path)
    except (_Damaged, RunFolderError):
        return False
    return True


def _read(path: Path) -> Checkpoint:
    """Read the checkpoint in the folder ``path``.

    Raises:
        _Damaged: it is not as it was written.
        RunFolderError: another version has written it.
    """
    progress, files = _manifest(path)
    if NAME.fullmatch(path.name) and _order(path.name)[0] != progress.step:
        raise _Damaged(f"{META} tells of step {progress.step}: it was moved here from another checkpoint")
    contents = {name: _content(path, name) for name in (WEIGHTS, STATE)}
    for name, content in contents.items():
        if _measured(content) != files[name]:
            raise _Damaged(f"{name} is cut short or altered")
    # What follows is about files that somebody else has made, with a manifest to match.
    try:
        weights = deserialized(contents[WEIGHTS])
    except SafetensorError as error:
        raise _Damaged(f"{WEIGHTS} is no safetensors file") from error
    try:
        state = torch.load(io.BytesIO(contents[STATE]), map_location="cpu", weights_only=True)
    except Exception as error:  # torch has many errors for it, and none of its own
        raise _Damaged(
            f"{STATE} holds more than tensors, numbers and text, and was not read: it could run code"
        ) from error
    return Checkpoint(path=path, weights=weights, state=state, progress=progress)


def _manifest(path: Path) -> tuple[Progress, dict[str, Any]]:
    """Read ``meta.json``: where the run stood, and the size and checksum of each other file."""
    altered = _Damaged(f"{META} is cut short or altered")
    try:
        meta = json.loads(_content(path, META))
        version, seal = meta["schema_version"], meta.pop("sha256")
    except (ValueError, TypeError, KeyError) as error:
        raise altered from error
    if version != SCHEMA_VERSION:
        raise RunFolderError(
            f"checkpoint {path} was written by another version of diptych (schema {version}, this one knows "
            f"{SCHEMA_VERSION}): resume with the version that run.json names, or start again with --overwrite"
        )
    if seal != _seal(meta):
        raise altered
    try:
        return from_dict(Progress, meta["progress"]), {name: meta["files"][name] for name in (WEIGHTS, STATE)}
    except (ConfigError, TypeError, KeyError) as error:
        raise altered from error


def _content(path: Path, name: str) -> bytes:
    try:
        return (path / name).read_bytes()
    except FileNotFoundError as error:
        raise _Damaged(f"{name} is missing") from error
    except OSError as error:
        raise _Damaged(f"{name} cannot be read: {error.strerror}") from error


# Putting it to use


def restore(method: nn.Module, point: Checkpoint, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Give a method the weights of a checkpoint, and its optimizer the state that it had then.

    Args:
        method: whose weights they are.
        point: the checkpoint.
        optimizer: that moves them; left out where no step will be taken.

    Raises:
        RunFolderError: they belong to another network, or to another optimizer; nothing is changed then.
    """
    misfit = _misfit(method.state_dict(), point.weights)
    if optimizer and not misfit:
        misfit = _optimizer_misfit(method, optimizer, point.state)
    if misfit:
        raise RunFolderError(
            f"checkpoint {point.path} belongs to another run ({misfit}): put this run's own checkpoints back, or start "
            "again with --overwrite"
        )
    method.load_state_dict(point.weights)
    if optimizer:
        optimizer.load_state_dict(point.state["optimizer"])


def _misfit(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Say in what the weights that were ``found`` are not those of a network; nothing where they are."""
    if missing := [name for name in wanted if name not in found]:
        return f"it lacks {len(missing)} of the network's {len(wanted)} weights: {_named(missing)}"
    if foreign := [name for name in found if name not in wanted]:
        return f"it holds {len(foreign)} weights that the network has not: {_named(foreign)}"
    for name, weight in wanted.items():
        if found[name].shape != weight.shape:
            return f"{name} is {tuple(found[name].shape)} there, not {tuple(weight.shape)}"
    return ""


def _optimizer_misfit(method: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> str:
    """Say in what a checkpoint's optimizer is another one; torch itself compares no more than the groups' sizes."""
    try:
        theirs, moments = state["optimizer"]["param_groups"], state["optimizer"]["state"]
        sizes = [len(group["params"]) for group in theirs]
        numbers = [number for group in theirs for number in group["params"]]
    except (TypeError, KeyError):
        return f"its {STATE} holds no optimizer"
    ours = optimizer.param_groups
    if sizes != (own := [len(group["params"]) for group in ours]):
        return f"its optimizer moves groups of {sizes} weights, not {own}"
    for group, their in zip(ours, theirs, strict=True):
        # Both ways: versions of torch add settings.
        if (lacks := group.keys() - their.keys()) and (has := their.keys() - group.keys()):
            return f"its optimizer has {', '.join(sorted(has))}, not {', '.join(sorted(lacks))}"
    names = {parameter: name for name, parameter in method.named_parameters()}
    for number, parameter in zip(numbers, (p for group in ours for p in group["params"]), strict=True):
        for key, moment in moments.get(number, {}).items():
            if isinstance(moment, Tensor) and moment.ndim and moment.shape != parameter.shape:
                shapes = f"{tuple(moment.shape)} there, not {tuple(parameter.shape)}"
                return f"the optimizer's {key} of {names[parameter]} is {shapes}"
    return ""


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
