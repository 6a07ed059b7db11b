"""What a setting may be, where calls take them by name."""

from typing import TypeAlias

Setting: TypeAlias = str | int | float | bool | None | tuple[float, ...]
