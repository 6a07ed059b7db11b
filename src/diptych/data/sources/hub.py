"""Data sets of the Hugging Face Hub, and local folders or Parquet files in its forms, by the package ``datasets``.

``datasets`` finds, downloads and lays out the table; the pictures in it are read as bytes and decoded by our own
``decode``. Only its readers of tables and image folders are let in, so nothing in a data set is ever run.
"""

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diptych.data.decoding.pixels import BadPicture
from diptych.data.sources.layout import VALIDATION, Splits, choose_parts, count
from diptych.data.sources.source import Entry, Files, digest
from diptych.errors import DataError

Labels: TypeAlias = NDArray[np.int64]
PREFIX = "hub:"
READERS = ("parquet", "arrow", "imagefolder", "csv", "json", "cache")
"""Modules of ``datasets`` that only read tables and folders; ``cache`` is what was downloaded earlier."""
TIMEOUT = 10.0
"""Seconds until the Hub is taken to be out of reach."""
MAX_REASON = 300
"""Characters kept of what ``datasets`` says."""
PICTURE_NAMES = ("image", "img", "picture")
"""Columns that hold pictures where the table does not say so itself."""


def open_hub(data: str) -> Splits:
    """Open a data set that ``datasets`` can read, downloading it to that package's cache where it is not there yet.

    Args:
        data: ``hub:user/name``, ``hub:user/name@configuration``, or ``hub:`` and the path of a Parquet file, or of a
            folder of Parquet files or pictures; a path that does not exist is a name unless it begins with ``/``,
            ``.`` or ``~``.

    Raises:
        DataError: ``datasets`` is not installed, the Hub cannot be reached or has no such data set, or no column of
            pictures is found.
    """
    name = data.removeprefix(PREFIX)
    if not name:
        raise DataError(f"{PREFIX} names no data set; type {PREFIX}user/name or {PREFIX}./folder")
    try:
        import datasets
        import huggingface_hub as hub
    except ImportError as error:
        raise DataError(f"{data} needs `pip install 'diptych[hub]'`") from error
    path = Path(os.path.expanduser(name))
    is_local = path.exists() or name[0] in "/.~"
    if is_local and not path.exists():
        raise DataError(
            f"there is no {name}; give a Parquet file, a folder of them or of pictures, or {PREFIX}user/name"
        )
    repository, _, configuration = name.partition("@")
    with _quiet(datasets, hub):
        reachable = None if is_local else _refuse_unknown(hub, repository, data)
        # Local data must not touch the network, and a Hub that is out of reach would be asked for half a minute more.
        datasets.config.HF_HUB_OFFLINE = is_local or reachable is not None
        try:
            if is_local:
                builder = datasets.load_dataset_builder(**_local(path))
            else:
                builder = datasets.load_dataset_builder(repository, configuration or None)
            kind = type(builder).__module__.removeprefix("datasets.packaged_modules.").split(".")[0]
            if kind not in READERS:
                raise DataError(f"{data} is read by '{kind}', which is not let in: Parquet files and image folders are")
            builder.download_and_prepare()
            table = builder.as_dataset()
            parts, note = _choose(datasets, dict(table))
            return _open(datasets, data, parts, note, None if is_local else _caches(datasets, hub))
        except DataError:
            raise
        except Exception as error:  # whatever the readers, the network and the disk run into
            raise DataError(_failed(data, error, reachable, repository)) from error


class HubSource(Files):
    """One part of a data set; its rows are looked up in the memory-mapped table when they are asked for.

    Args:
        name: for people.
        table: a ``datasets.Dataset`` whose column of pictures is not decoded.
        columns: names of the columns of pictures and of groups.
        labels: place of each picture's class in ``classes``, -1 where it has none; None without labels.
        classes: names of the classes.
        fingerprint: of the pictures.
        folders: where files that a row names must lie; None for anywhere.
    """

    def __init__(
        self,
        name: str,
        table: Any,
        columns: tuple[str, str | None],
        labels: Labels | None,
        classes: tuple[str, ...],
        fingerprint: str,
        folders: tuple[Path, ...] | None = None,
    ) -> None:
        # No entries are handed on: describing every row of a large table, for a fingerprint that is known, takes long.
        super().__init__(name, (), self._find, None, classes)
        self.classes, self.fingerprint = classes if labels is not None else (), fingerprint
        self._entries = _Rows(table, columns[0], int(fingerprint[:15], 16))
        self._table, self._numbers = table, labels
        self._pictures, self._group = columns
        self._folders = folders

    def label(self, index: int) -> int | None:
        """Return the place of the picture's class in ``classes``, None where it has none."""
        if self._numbers is None or self._numbers[index] < 0:
            return None
        return int(self._numbers[index])

    def group(self, index: int) -> str | None:
        """Return what the picture belongs to."""
        group = None if self._group is None else self._table.data.column(self._group)[index].as_py()
        return None if group is None else str(group)

    def _find(self, name: str) -> bytes | Path:
        value = self._table.data.column(self._pictures)[int(name.partition(" ")[0])].as_py() or {}
        if value.get("bytes"):
            return bytes(value["bytes"])
        if value.get("path"):
            path = Path(os.path.abspath(value["path"]))
            if self._folders is not None and not any(map(path.is_relative_to, self._folders)):
                raise BadPicture(name, "its row names a file outside the data set")
            return path
        raise BadPicture(name, "its row holds no picture")


class _Rows(Sequence[Entry]):
    """The rows of a table as entries, described when they are asked for and without reading a picture's bytes."""

    def __init__(self, table: Any, column: str, stamp: int) -> None:
        self._table, self._column, self._stamp = table, column, stamp

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        cell = self._table.data.column(self._column)[index]
        path = cell["path"].as_py() if cell.is_valid else None
        content = cell["bytes"].as_buffer() if cell.is_valid else None
        name = f"{index:06d}" + (f" ({'/'.join(Path(path).parts[-2:])})" if path else "")
        return Entry(name, content.size if content else 0, self._stamp)


@contextlib.contextmanager
def _quiet(datasets: Any, hub: Any) -> Iterator[None]:
    """Keep progress bars, log lines and warnings from the terminal, and leave everything as it was afterwards."""
    config, verbosity = datasets.config, datasets.utils.logging.get_verbosity()
    bars = [place for place in (datasets.utils, hub.utils) if not place.are_progress_bars_disabled()]
    kept = config.HF_HUB_OFFLINE, config.HF_UPDATE_DOWNLOAD_COUNTS
    config.HF_UPDATE_DOWNLOAD_COUNTS = False  # a report of each use to the Hub that nobody asked for
    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)
    for place in bars:
        place.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for place in bars:
            place.enable_progress_bars()
        datasets.utils.logging.set_verbosity(verbosity)
        config.HF_HUB_OFFLINE, config.HF_UPDATE_DOWNLOAD_COUNTS = kept


def _refuse_unknown(hub: Any, repository: str, data: str) -> str | None:
    """Ask the Hub once whether it has the data set; return why it cannot be reached, None where it can."""
    try:
        hub.HfApi().dataset_info(repository, timeout=TIMEOUT)
    except hub.errors.HFValidationError as error:
        raise DataError(f"'{repository}' is not the name of a data set; type {PREFIX}user/name") from error
    except hub.errors.GatedRepoError as error:
        raise DataError(f"{data} is only given to those who ask: agree on its page, then `hf auth login`") from error
    except hub.errors.RepositoryNotFoundError as error:
        raise DataError(
            f"the Hugging Face Hub has no data set {repository}, or it is private; check the name, or `hf auth login`"
        ) from error
    except Exception as error:  # what the network raises depends on the version of huggingface_hub
        return _short(error)
    return None


def _caches(datasets: Any, hub: Any) -> tuple[Path, ...]:
    """Return where downloaded files lie: a table from elsewhere has no business with other files of this machine."""
    config = datasets.config
    return tuple(Path(os.path.abspath(place)) for place in (config.HF_DATASETS_CACHE, hub.constants.HF_HUB_CACHE))


def _local(path: Path) -> dict[str, Any]:
    if path.is_file():
        return {"path": "parquet", "data_files": str(path)}
    return {"path": str(path.absolute())}  # absolute: a bare name could be one of the Hub or of a reader


def _choose(datasets: Any, parts: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the parts to learn from and to test on, in that order, and a note on the others."""
    if chosen := choose_parts(parts):
        rest = "".join(
            f"; {count(len(part), 'picture')} of the split {name} left out"
            for name, part in parts.items()
            if name not in chosen
        )
        _, test = chosen
        taken = f"; the split {test} is tested on, as there is no test" if test in VALIDATION else ""
        return {name: parts[name] for name in chosen}, taken + rest
    if len(parts) == 1:
        return parts, ""
    return {"": datasets.concatenate_datasets(list(parts.values()))}, f"; all its splits ({', '.join(parts)}) together"


def _open(datasets: Any, data: str, parts: dict[str, Any], note: str, folders: tuple[Path, ...] | None) -> Splits:
    features = next(iter(parts.values())).features
    pictures = _picture_columns(datasets, features, data)
    label = _label_column(datasets, features)
    group = "group" if "group" in features else None
    numbers, classes = _labels(datasets, parts, label)
    sources = []
    for (split, table), labels in zip(parts.items(), numbers, strict=True):
        name = f"{data}/{split}" if len(parts) > 1 else data
        known = digest([table._fingerprint, len(table)])  # datasets' own: of the files, the configuration and the split
        # cast_column reads nothing: it only says that pictures are handed out as they are stored.
        table = table.cast_column(pictures[0], datasets.Image(decode=False))
        sources.append(HubSource(name, table, (pictures[0], group), labels, classes, known, folders))
    found = f"{data} holds {count(len(sources[0]), 'picture')}"
    if len(sources) > 1:
        found += f" to learn from and {len(sources[1])} to test on: pretraining uses only the first"
    found += f", {count(len(classes), 'class')} (column {label})" if classes else ", without labels"
    if len(pictures) > 1:
        found += f"; of the columns of pictures ({', '.join(pictures)}) only {pictures[0]} is used"
    if not len(sources[0]):
        raise DataError(f"{data} holds no pictures to learn from; give another data set")
    return Splits(train=sources[0], test=sources[1] if len(sources) > 1 else None, note=found + note)


def _picture_columns(datasets: Any, features: Any, data: str) -> list[str]:
    found = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    plain = [name for name in PICTURE_NAMES if name in features and _is_encoded(features[name])]
    if not (found or plain):
        raise DataError(f"{data} has no column of pictures (it has {', '.join(features)}); give a data set that does")
    return found or plain[:1]


def _is_encoded(feature: Any) -> bool:
    """Whether a column that is not declared as pictures holds encoded ones: bytes, alone or beside a path."""
    kind = feature.get("bytes") if isinstance(feature, dict) else feature
    return getattr(kind, "dtype", None) in ("binary", "large_binary")


def _label_column(datasets: Any, features: Any) -> str | None:
    """Return the first column of classes, or the column ``label`` where it holds text or whole numbers."""
    for name, feature in features.items():
        if isinstance(feature, datasets.ClassLabel):
            return str(name)
    kind = str(getattr(features.get("label"), "dtype", ""))
    return "label" if kind.startswith(("int", "uint", "string", "large_string")) else None


def _labels(datasets: Any, parts: dict[str, Any], label: str | None) -> tuple[list[Labels | None], tuple[str, ...]]:
    """Return the classes of each part's pictures (-1: none; None: the part has no labels), and their names."""
    if label is None:
        return [None] * len(parts), ()
    cells = [table.data.column(label).to_pylist() for table in parts.values()]
    feature = next(iter(parts.values())).features[label]
    if isinstance(feature, datasets.ClassLabel):
        names = list(feature.names)
        place = {number: number for number in range(len(names))}
    else:
        values = sorted({value for part in cells for value in part if value is not None})
        names = [str(value) for value in values]
        place = {value: number for number, value in enumerate(values)}
    numbers = [np.array([place.get(value, -1) for value in part], np.int64) for part in cells]
    return [part if len(part) and part.max() >= 0 else None for part in numbers], tuple(names)


def _failed(data: str, error: Exception, reachable: str | None, repository: str) -> str:
    if reachable is not None:
        return (
            f"cannot reach the Hugging Face Hub ({reachable}), and {repository} is not in its cache on this machine; "
            "check the network"
        )
    if "Config name is missing" in str(error):
        return f"{data} has several configurations: {_short(error)}; type one of them behind its name, {data}@NAME"
    if isinstance(error, ValueError) and "BuilderConfig" in str(error):
        return f"{data}: {_short(error)}"
    return f"cannot read {data} ({_short(error)}); Parquet files and image folders are read"


def _short(error: Exception) -> str:
    """Return the first cause in one line: what ``datasets`` raises for it only says that something went wrong."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return " ".join(str(error).split())[:MAX_REASON] or type(error).__name__
