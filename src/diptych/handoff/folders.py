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


@contextmanager
def writing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path``, then move it there; what ``refuse_used`` let pass is replaced.

    Raises:
        RunFolderError: the disk is full, or the folder may not be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing_errors(path):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            for file in temporary.iterdir():
                with open(file, "rb") as written:
                    os.fsync(written.fileno())
            if path.exists():
                shutil.rmtree(path)
            os.replace(temporary, path)
            sync_folder(path.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def refuse_used(path: Path, *, option: str, overwrite: bool, is_folder: bool) -> None:
    """Refuse a place where something is that may not be replaced.

    Args:
        path: where something is to be written.
        option: the flag that named it.
        overwrite: an earlier file, or an earlier folder of ours, may be replaced.
        is_folder: whether a folder is to be written.

    Raises:
        DataError: something is there already, or it is no folder of ours.
    """
    if not path.exists():
        return
    if not overwrite:
        raise DataError(f"{path} is there already: choose another {option}, or add --overwrite to replace it")
    if path.is_dir() != is_folder or (is_folder and not _is_ours(path)):
        raise DataError(
            f"{path} was not written by diptych export, so --overwrite will not delete it; choose another {option}"
        )


def _is_ours(folder: Path) -> bool:
    if not any(folder.iterdir()):
        return True
    try:
        return KEY in read_json(folder / CONFIG_FILE)
    except RunFolderError:
        return False
