"""What ``diptych duplicates`` leaves behind: its groups as CSV, and the pictures to keep as a list to learn from."""

import os
from pathlib import Path

from diptych.data.sources.manifest import COMMENT
from diptych.data.sources.open import LISTS, MANIFESTS
from diptych.errors import ConfigError, DataError, printable
from diptych.runs import write_text, writing_errors
from diptych.vectors.duplicates import COLUMNS, Duplicates
from diptych.vectors.listing import write_csv
from diptych.vectors.table import Vectors


def refuse_written(option: str, path: str | Path, endings: tuple[str, ...], *, overwrite: bool) -> Path:
    """Return where to write; refuse a file that is there, or called otherwise, before anything is computed.

    Raises:
        ConfigError: its name has none of the endings.
        DataError: it is there already, and may not be replaced.
    """
    file = Path(path)
    if not file.name.lower().endswith(endings):
        raise ConfigError(f"{option} {path}: give a file {' or '.join(f'NAME{ending}' for ending in endings)}")
    with writing_errors(file, f"choose another {option}"):
        is_there = file.exists()
    if is_there and not (overwrite and file.is_file()):
        raise DataError(f"{path} is there already: choose another {option}, or add --overwrite to replace it")
    return file


def write_groups(path: Path, found: Duplicates) -> None:
    """Write a row for each picture of a group: its number, whether to keep it, its name, its cosine to the kept one."""
    write_csv(path, COLUMNS, found.csv_rows())


def write_keep_list(path: Path, found: Duplicates, vectors: Vectors) -> None:
    """Write the pictures to keep, one a line.

    Where they are files, lines are paths relative to the list's folder, so that ``diptych pretrain`` takes it; else
    they are names in the set.

    Raises:
        DataError: a name cannot be on a line of its own.
    """
    root = _folder(vectors)
    above = "" if root is None else os.path.relpath(root, path.parent) + "/"
    lines = []
    for row in found.kept_rows():
        line = (above + vectors.names[row]).removeprefix("./")
        if line != line.strip() or len(line.splitlines()) != 1:
            raise DataError(f"the name '{printable(line)}' cannot be on a line of its own: rename the picture")
        lines.append(f"./{line}\n" if line.startswith(COMMENT) else f"{line}\n")
    write_text(path, "".join(lines))


def _folder(vectors: Vectors) -> Path | None:
    """Return the folder that names are relative to, None where they are not of files."""
    if vectors.card is None or vectors.card.preprocessing.tile is not None:
        return None
    data = Path(os.path.expanduser(vectors.card.data))
    if data.is_dir():
        return data
    return data.parent if data.is_file() and data.name.lower().endswith(MANIFESTS + LISTS) else None
