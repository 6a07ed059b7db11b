"""Real picture files for the tests of this folder."""

import io

import numpy as np
from PIL import Image

from diptych.auditing.index import Index
from diptych.auditing.run import bring_up_to_date
from diptych.data.sources.open import open_data
from diptych.progress import Terminal


def photo(seed=0, width=64, height=48):
    """A smooth picture that looks like no other; Pillow, RGB."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def encoded(kind="JPEG", picture=None, **options):
    """Bytes of a picture file."""
    buffer = io.BytesIO()
    (picture or photo()).save(buffer, kind, **options)
    return buffer.getvalue()


def write(root, **files):
    """Write files under names in which ``__`` stands for a folder and the last ``_`` for the dot."""
    for name, content in files.items():
        stem, _, suffix = name.replace("__", "/").rpartition("_")
        path = root / f"{stem}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def photos(root, count, first=0, suffix="jpg"):
    """Write so many different photos into a folder."""
    root.mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + count):
        (root / f"{seed:04}.{suffix}").write_bytes(
            encoded("JPEG" if suffix == "jpg" else "PNG", photo(seed), **({"quality": 90} if suffix == "jpg" else {}))
        )
    return root


def indexed(data, path):
    """Open an index of ``data`` that is up to date; close it yourself."""
    splits = open_data(str(data))
    parts = [splits.train] + ([splits.test] if splits.test else [])
    index = Index(path, str(data))
    index.__enter__()
    bring_up_to_date(index, parts, Terminal(quiet=True))
    return index


def found(result, key):
    """The finding of that key, None where there is none."""
    return next((finding for finding in result["findings"] if finding["key"] == key), None)
