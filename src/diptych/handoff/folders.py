"""A folder that appears whole or not at all, as ``runs.writing`` has it for a file."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diptych.errors import DataError, RunFolderError
from diptych.handoff.card import KEY
from diptych.runs import read_json, sync_folder, writing_errors

CONFIG_FILE = "config.json"
"""In every folder that is written here; the card in it tells that it is ours."""
WEIGHTS_FILE = "model.safetensors"
README = "README.md"
FILES = {CONFIG_FILE, WEIGHTS_FILE, README}
"""All that is ever written there."""


@contextmanager
def writing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path``, then move it there; what ``refuse_used`` let pass is replaced.

    Raises:
        RunFolderError: the disk is full, or the folder may not be written.
    """
    temporary, earlier = (path.with_name(f".{path.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    with writing_errors(path):
        try:
            shutil.rmtree(temporary, ignore_errors=True)  # of a killed process that had our number, as in containers
            temporary.mkdir(parents=True)
            yield temporary
            for file in temporary.iterdir():
                with open(file, "rb") as written:
                    os.fsync(written.fileno())
            sync_folder(temporary)
            if os.path.lexists(path):
                os.replace(path, earlier)  # a kill from here on leaves it under that name
            os.replace(temporary, path)
            sync_folder(path.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            if os.path.lexists(earlier) and not os.path.lexists(path):
                os.replace(earlier, path)
            raise
        _remove(earlier)


def refuse_used(path: Path, *, option: str, overwrite: bool | None, is_folder: bool) -> None:
    """Refuse a place where something is that may not be replaced.

    Args:
        path: where something is to be written.
        option: the flag that named it.
        overwrite: an earlier file, or an earlier folder of ours, may be replaced; None where nothing ever may.
        is_folder: whether a folder is to be written.

    Raises:
        DataError: something is there already, or it is no folder of ours.
        RunFolderError: a folder is there that may not be looked into.
    """
    if not os.path.lexists(path):  # a link to nothing is something, too
        return
    if not overwrite:
        replace = "" if overwrite is None else ", or add --overwrite to replace it"
        raise DataError(f"{path} is there already: choose another {option}{replace}")
    if path.is_dir() != is_folder or (is_folder and not _is_ours(path)):
        raise DataError(
            f"{path} was not written by diptych export, or holds other files too, so --overwrite will not delete it; "
            f"choose another {option}"
        )


def _is_ours(folder: Path) -> bool:
    """Whether nothing is in a folder but what we write there."""
    with writing_errors(folder):
        names = {file.name for file in folder.iterdir()}
    if not names:
        return True
    try:
        return names <= FILES and KEY in read_json(folder / CONFIG_FILE)
    except RunFolderError:
        return False


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()  # what it points to is somebody's
    else:
        shutil.rmtree(path, ignore_errors=True)
