"""Files a second: an audit beside what a person would write with Pillow in one process.

    python benchmarks/audit.py [ROUNDS] [FOLDER ...]

Without a folder, 3,000 JPEGs of 500 × 375 pixels are made from the photographs that scikit-image brings. The contenders
take turns, every round in another order, and the median of each one's files/s is printed with its ratio to ours. All
files are read once beforehand, so that the disk is no part of it.

verify        for each file: SHA-256 of its content and ``Image.open(...).verify()``. Of a JPEG, ``verify`` reads the
              header alone: files that are cut short pass, nothing is known of the pixels, and no near duplicate can be
              found.
verify+hash   the same, then the file is opened again and decoded (which finds those that are cut short), and a DCT
              hash of 64 bits is made (gray, 32 × 32, as lean as it can be written): what it takes to find near
              duplicates.
on all cores  verify+hash divided over as many processes as there are cores: what the machine gives beside one process,
              which on a shared machine is less than the number of its cores.
ours          ``audit``'s scan: all of that, and per-channel mean, standard deviation and range, written into its index.
whole audit   ``audit`` from the command to the page: the comparison of all pictures, thumbnails and HTML included.
"""

import hashlib
import io
import multiprocessing
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from diptych.auditing.index import Index
from diptych.auditing.run import audit, bring_up_to_date
from diptych.data.sources.open import open_data
from diptych.progress import Terminal

COSINES = np.cos(np.pi * (np.arange(32) + 0.5) * np.arange(8)[:, None] / 32)
NAMES = ("astronaut", "camera", "coffee", "chelsea", "rocket", "hubble_deep_field", "retina", "brick", "grass", "coins")


def verify(files: list[Path]) -> None:
    """Open and verify every file, and hash its content."""
    for path in files:
        content = path.read_bytes()
        hashlib.sha256(content).digest()
        with Image.open(io.BytesIO(content)) as picture:
            picture.verify()


def verify_and_hash(files: list[Path]) -> None:
    """Verify, decode, and make a perceptual hash."""
    for path in files:
        content = path.read_bytes()
        hashlib.sha256(content).digest()
        with Image.open(io.BytesIO(content)) as picture:
            picture.verify()
        with Image.open(io.BytesIO(content)) as picture:
            gray = picture.convert("L").resize((32, 32), Image.Resampling.BOX)
        waves = COSINES @ np.asarray(gray, np.float64) @ COSINES.T
        np.packbits(waves > np.median(waves))


def verify_and_hash_on_all_cores(files: list[Path]) -> None:
    """Divide the files over processes."""
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, multiprocessing.get_context("fork")) as pool:
        list(pool.map(verify_and_hash, [files[start : start + 48] for start in range(0, len(files), 48)]))


def make_photos(folder: Path, count: int = 3000) -> None:
    """Write JPEGs of 500 × 375 pixels, crops of photographs."""
    photos = [Image.fromarray(np.asarray(getattr(skimage.data, name)())).convert("RGB") for name in NAMES]
    draw = random.Random(0)
    for number in range(count):
        photo = photos[number % len(photos)]
        width = int(min(photo.size) * draw.uniform(0.6, 1))
        height = int(width * 0.75)
        left, top = (draw.randint(0, room) for room in (photo.width - width, photo.height - height))
        crop = photo.crop((left, top, left + width, top + height)).resize((500, 375), Image.Resampling.BICUBIC)
        crop.save(folder / f"{number:04}.jpg", quality=88)


def measure(data: Path, rounds: int) -> None:
    """Print the medians of all contenders on one folder."""
    files = sorted(path for path in data.rglob("*") if path.is_file())
    size = sum(len(path.read_bytes()) for path in files)
    out = Path(tempfile.mkdtemp())

    def scan() -> None:
        splits = open_data(str(data))
        parts = [splits.train] + ([splits.test] if splits.test else [])
        with Index(out / "index.sqlite", str(data)) as index:
            bring_up_to_date(index, parts, Terminal(quiet=True))

    contenders: dict[str, Callable[[], object]] = {
        "verify": lambda: verify(files),
        "verify+hash": lambda: verify_and_hash(files),
        "on all cores": lambda: verify_and_hash_on_all_cores(files),
        "ours": scan,
        "whole audit": lambda: audit(str(data), out),
    }
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        names = list(contenders)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            shutil.rmtree(out)
            out.mkdir()
            begun = time.perf_counter()
            contenders[name]()
            speeds[name].append(len(files) / (time.perf_counter() - begun))
    shutil.rmtree(out)
    medians = {name: statistics.median(found) for name, found in speeds.items()}
    print(f"{data}: {len(files):,} files of {size / len(files) / 1000:.1f} kB, {len(os.sched_getaffinity(0))} cores")
    for name, speed in medians.items():
        spread = f"{min(speeds[name]):,.0f}–{max(speeds[name]):,.0f}"
        print(f"  {name:12} {speed:8,.0f} files/s ({spread})   ours is {medians['ours'] / speed:.2f} ×", flush=True)


if __name__ == "__main__":
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as made:
        if len(sys.argv) < 3:
            make_photos(Path(made))
        for given in sys.argv[2:] or [made]:
            measure(Path(given), turns)
