"""What a segmentation asks: one dataclass, validated once."""

import shlex
from dataclasses import dataclass, fields
from typing import Literal

from diptych.errors import ConfigError, check, suggest
from diptych.evaluation.config import check_name

MAPS = ("last", "all")
GROUPINGS = ("picture", "folder")


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig:
    """Which pictures, how large, and which of a backbone's maps."""

    size: int | None = None
    """Pixels a side that pictures and masks are brought to, a multiple of the backbone's coarsest stride; the run's own
    image size if not given."""
    maps: Literal["last", "all"] = "last"
    """The backbone's last map, or all of them, from fine to coarse."""
    pixels: int = 50_000
    """Pixels that the probe learns from, at most, but for those of rare classes."""
    group_by: Literal["picture", "folder"] = "picture"
    """Folder: pictures in one folder belong together, as frames of a film do; they are split, held out and drawn anew
    as one."""
    limit: int | None = None
    """Use this many pictures of each split, drawn by a fixed seed."""
    seed: int = 0
    """Of the split, of the pixels that are learned from and of the pictures that choose the L2 strength."""
    name: str | None = None
    """Of the result, RUN/evaluation/NAME-segmentation.json."""

    def __post_init__(self) -> None:
        if self.maps not in MAPS:
            raise ConfigError(f"unknown --maps '{self.maps}'{suggest(self.maps, MAPS)}")
        if self.group_by not in GROUPINGS:
            raise ConfigError(f"unknown --group-by '{self.group_by}'{suggest(self.group_by, GROUPINGS)}")
        given = [name for name in ("size", "pixels", "limit") if getattr(self, name) is not None]
        check(self, "1 or more", lambda value: value >= 1, *given)
        check(self, "0 or more", lambda value: value >= 0, "seed")
        check_name(self.name)

    @property
    def words(self) -> str:
        """Flags that repeat this segmentation."""
        changed = [
            (field.name, value)
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default or field.name == "seed"
        ]
        words = (word for key, value in changed for word in (f"--{key.replace('_', '-')}", str(value)))
        return shlex.join(["--task", "segmentation", *words])
