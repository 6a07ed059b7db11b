"""Folders that are handed on: what is written there, and which may be replaced."""

import os
from pathlib import Path

from diptych.errors import DataError, RunFolderError
from diptych.handoff.card import KEY
from diptych.runs import read_json, writing_errors

CONFIG_FILE = "config.json"
"""In every folder that is written here; the card in it tells that it is ours."""
WEIGHTS_FILE = "model.safetensors"
README = "README.md"
FILES = {CONFIG_FILE, WEIGHTS_FILE, README}
"""All that is ever written there."""


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
