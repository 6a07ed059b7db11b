"""Real pictures on which an artefact is compared with its run: the run's own, others, or the bundled photographs.

Nothing is downloaded that was not asked for: data of the run that is not on this machine is passed over.
"""

import os
from pathlib import Path
from typing import Any

from torch import Tensor

from diptych.data.decoding.pixels import BadPicture
from diptych.data.sources.chosen import open_source
from diptych.data.sources.cifar10 import ARCHIVE, FOLDER, TEST_FILES
from diptych.data.sources.hub import PREFIX
from diptych.data.stores.memory import build_memory_store
from diptych.errors import DataError
from diptych.frozen import Preprocessing

COUNT = 64
"""Pictures drawn."""
LEAST = 2
"""Of which one can be the other's neighbour."""


def pictures_for(
    made: Preprocessing, config: dict[str, Any], data: str | None, data_dir: str | None
) -> tuple[Tensor, str]:
    """Find up to 64 pictures ``(N, C, S, S)``, stored as the run stores them.

    Args:
        made: what the run takes.
        config: of ``run.json``: where the run's own pictures lie.
        data: pictures to use instead, as for ``open_data``.
        data_dir: where the archive of the named data set ``data`` lies.

    Returns:
        The pictures, and whose they are, for people.

    Raises:
        DataError: ``data`` was given and has not two pictures that the run could take; or it was not given, the run's
            own cannot be read, and the bundled photographs have other channels or another type than it takes.
    """
    if data is not None:
        return _read(made, data, data_dir, made.tile), data
    own, own_dir = config.get("data"), config.get("data_dir")
    if isinstance(own, str) and _is_here(own, own_dir):
        try:
            return _read(made, own, own_dir, made.tile), "the run's own pictures"
        except DataError:
            pass  # moved, emptied or changed since: the photographs are always there
    try:
        return _read(made, "photos", None, None), "the bundled photographs"
    except DataError as error:
        raise DataError(
            f"the pictures that the run learned from ({own}) are not there, and the bundled photographs are not "
            f"{made.pixels}: give pictures of that kind with --data"
        ) from error


def _is_here(data: str, data_dir: str | None) -> bool:
    if data.startswith(PREFIX):
        return False
    if data != "cifar10":
        return True
    place = Path(os.path.expanduser(data_dir)) if data_dir else Path.home() / ".cache" / "diptych"
    return place.is_file() or any((place / name).exists() for name in (ARCHIVE, FOLDER, TEST_FILES[0]))


def _read(made: Preprocessing, data: str, data_dir: str | None, tile: int | None) -> Tensor:
    source, _ = open_source(data, data_dir, tile, COUNT)
    bad: list[BadPicture] = []
    store = build_memory_store(source, made.image_size, made.pixels, bad.append)
    if len(store) < LEAST:
        raise DataError(f"{data}: {LEAST} pictures are needed at least to compare neighbours; give others with --data")
    return store.images
