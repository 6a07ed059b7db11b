"""How long the explorer takes to show the 60,000 pictures of CIFAR-10, and a picture that is pointed at.

    python benchmarks/explorer.py                                     # vectors drawn at random around ten centres
    python benchmarks/explorer.py --vectors emb.parquet               # those of `diptych embed RUN cifar10`
    python benchmarks/explorer.py --points 1000000                    # no pictures, and as many points as are asked for
    python benchmarks/explorer.py --requests 10000                    # so many connections at once, besides

It opens the page in headless Chromium, where WebGL is drawn by the processor (SwiftShader), so that a machine with a
graphics card is faster. Printed are seconds from asking for the page to the points being on the screen, as the page
itself measures them and in CPU time of all of Chromium's processes, and milliseconds from a movement of the pointer to
the picture being there, decoded. Bars: 3 s and 100 ms for 60,000 points.
"""

import argparse
import asyncio
import collections
import os
import shutil
import statistics
import time

import numpy as np
from playwright.sync_api import sync_playwright

from diptych.data.sources.source import Arrays
from diptych.explorer.explore import explore
from diptych.vectors.pictures import pictures_of
from diptych.vectors.table import Vectors, read_vectors

FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FINISHED = """() => {
  // To read a pixel waits for all that was to be drawn.
  const gl = document.querySelector("#map canvas").getContext("webgl2");
  gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
  return performance.now();
}"""
HOVER = """async ([x, y]) => {
  const map = document.querySelector("#map");
  const before = document.querySelector("#card").dataset.row;
  const start = performance.now();
  map.dispatchEvent(new PointerEvent("pointermove", { clientX: x, clientY: y, bubbles: true }));
  const image = document.querySelector("#card img");
  const row = document.querySelector("#card").dataset.row;
  if (!image || row === undefined || row === before) return null;
  while (!image.src) await new Promise((done) => setTimeout(done));
  await image.decode();
  return performance.now() - start;
}"""


def synthetic(count: int) -> tuple[Vectors, Arrays | None]:
    """Vectors around ten centres; pictures of noise, where there are not too many."""
    random = np.random.default_rng(0)
    which = random.integers(0, 10, count)
    values = (random.standard_normal((10, 64))[which] + 0.9 * random.standard_normal((count, 64))).astype(np.float32)
    names = [f"{CLASSES[group]}/{row:06}" for row, group in enumerate(which)]
    labels = [CLASSES[group] for group in which]
    vectors = Vectors(values=values, names=names, labels=labels, groups=None, card=None, path=None)
    if count > 100_000:
        return vectors, None
    images = random.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    return vectors, Arrays("noise", images, which.tolist(), CLASSES)


def cpu_seconds(root: int) -> float:
    """CPU time so far of a process and all below it."""
    parents, spent = {}, {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(name)] = int(fields[1])
        spent[int(name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def below(process: int) -> bool:
        while process not in (root, 0, 1):
            process = parents.get(process, 0)
        return process == root

    return sum(seconds for process, seconds in spent.items() if below(process))


async def flood(port: int, path: str, count: int) -> collections.Counter[str]:
    """Ask on so many connections at once; what came back, by status."""

    async def one() -> str:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            head = await reader.read(12)
            writer.close()
            return head[9:12].decode() or "closed"
        except OSError as error:
            return type(error).__name__

    return collections.Counter(await asyncio.gather(*(one() for _ in range(count))))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", help="a file of vectors; without one they are drawn at random")
    parser.add_argument("--points", type=int, default=60_000)
    parser.add_argument("--hovers", type=int, default=40)
    parser.add_argument("--requests", type=int, default=0)
    asked = parser.parse_args()
    if asked.vectors:
        vectors = read_vectors(asked.vectors)
        pictures = pictures_of(vectors.card) if vectors.card else None
    else:
        vectors, pictures = synthetic(asked.points)
    start = time.perf_counter()
    server = explore(vectors, pictures, port=0, open_browser=False)
    print(f"{len(vectors):,} points; laid out and listening after {time.perf_counter() - start:.2f} s")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        page.set_default_timeout(600_000)
        page.goto("about:blank")
        before = cpu_seconds(os.getpid())
        page.goto(server.address)
        page.wait_for_selector("html[data-ready][data-drawn]")
        drawn = page.evaluate(FINISHED)
        spent = cpu_seconds(os.getpid()) - before
        print(f"on the screen after {drawn / 1000:.2f} s; CPU time of browser and server {spent:.2f} s (bar: 3 s)")
        if pictures is not None:
            box = page.locator("#map").bounding_box() or {}
            random = np.random.default_rng(1)
            corners = random.uniform((0.3, 0.3), (0.7, 0.7), (asked.hovers, 2))
            places = [[box["x"] + x * box["width"], box["y"] + y * box["height"]] for x, y in corners]
            taken = [took for took in (page.evaluate(HOVER, place) for place in places) if took is not None]
            worst = sorted(taken)[int(0.95 * len(taken))]
            print(
                f"pointing at {len(taken)} pictures: {statistics.median(taken):.0f} ms in the middle, {worst:.0f} ms "
                "at the 95th percentile (bar: 100 ms)"
            )
        browser.close()
    if asked.requests:
        with explore(vectors, pictures, port=0, open_browser=False) as server:
            path = server.address.split(str(server.port))[1] + "scene"
            start = time.perf_counter()
            found = asyncio.run(flood(server.port, path, asked.requests))
            print(f"{asked.requests:,} connections at once: {dict(found)} in {time.perf_counter() - start:.1f} s")
            again = asyncio.run(flood(server.port, path, 1))
            print(f"and one afterwards: {dict(again)}")


if __name__ == "__main__":
    main()
