"""The page in a real browser: what it draws, what pointer, keys and files do, and that nothing in a name runs."""

import csv
import io
import shutil

import numpy as np
import pytest
from matplotlib.path import Path as Polygon
from PIL import Image
from scenes import BITING, CLASSES, colour, pictures, scene, vectors

from diptych.explorer.explore import export_static
from diptych.explorer.server import Server

sync_api = pytest.importorskip("playwright.sync_api", reason="the page is tested by playwright: pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here")

COUNT = 240
DRAWN = "html[data-ready][data-drawn]"
PATIENCE = 120_000  # milliseconds: other tests may run beside this one, and WebGL is drawn by the processor
WATCH = """
    window.violations = [];
    addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective + event.blockedURI));
"""
WHOLE = scene(COUNT, splits=["train"] * 200 + ["test"] * 40)
POSITIONS = WHOLE.layout.positions.astype(float)


@pytest.fixture(scope="module")
def browser():
    flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield running
        running.close()


@pytest.fixture(scope="module")
def server():
    with Server(WHOLE, 0) as running:
        yield running


@pytest.fixture(scope="module")
def context(browser):
    made = browser.new_context(viewport={"width": 1000, "height": 700}, accept_downloads=True)
    made.set_default_timeout(PATIENCE)
    made.add_init_script(WATCH)
    yield made
    made.close()


class Watched:
    """A page that was opened, and all that the browser said of it and asked for."""

    def __init__(self, context, address):
        self.page, self.said, self.asked = context.new_page(), [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)
        self.page.wait_for_selector(DRAWN)

    def has_no_complaint(self):
        own = self.page.url.rpartition("/")[0]
        assert [url for url in self.asked if not url.startswith((own, "data:", "blob:"))] == []
        assert self.page.evaluate("violations") == []
        assert self.page.title() != "bitten"
        assert self.said == []
        return True


@pytest.fixture(scope="module")
def watched(context, server):
    made = Watched(context, server.address)
    yield made
    made.page.close()


@pytest.fixture
def page(watched):
    """The page as it is at first; at the end of the test the browser has complained of nothing."""
    watched.page.keyboard.press("Escape")
    watched.page.click("#fit")
    watched.page.select_option("#scheme", "label")
    watched.page.mouse.move(2, 2)
    yield watched.page
    assert watched.has_no_complaint()


def at(page, row):
    """Where a point lies on the screen, as long as all of the map is shown."""
    box = page.locator("#map").bounding_box()
    scale = 0.92 * min(box["width"], box["height"]) / 2
    x, y = POSITIONS[row]
    return box["x"] + box["width"] / 2 + x * scale, box["y"] + box["height"] / 2 - y * scale


def shown_colour(page, selector):
    """The colour in the middle of a picture, once it is loaded."""
    page.wait_for_function(
        "s => document.querySelector(s)?.complete && document.querySelector(s).naturalWidth", arg=selector
    )
    return page.eval_on_selector(
        selector,
        """image => {
          const canvas = new OffscreenCanvas(1, 1).getContext("2d");
          canvas.drawImage(image, image.naturalWidth / 2, image.naturalHeight / 2, 1, 1, 0, 0, 1, 1);
          return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
        }""",
    )


def listed(page, count):
    page.wait_for_function("n => document.querySelectorAll('#panel .pictures button').length === n", arg=count)
    return [
        int(row) for row in page.eval_on_selector_all("#panel .pictures button", "all => all.map(b => b.dataset.row)")
    ]


def test_it_draws_the_points_in_their_colours(page):
    assert page.text_content("#facts").startswith("240 pictures · PCA, ")
    legend = page.eval_on_selector_all("#legend .categories button", "all => all.map(b => b.textContent)")
    assert legend == [f"{name}80" for name in CLASSES]
    with Image.open(io.BytesIO(page.screenshot()), formats=["PNG"]) as shot:
        seen = np.array(shot.convert("RGB"), int)
    for row in (10, 11, 12):
        x, y = (round(place) for place in at(page, row))
        around = seen[y - 3 : y + 4, x - 3 : x + 4].reshape(-1, 3)
        swatch = [(0x2B, 0x5F, 0x93), (0xC8, 0x60, 0x2F), (0x2F, 0x8F, 0x5B)][row % 3]
        assert np.abs(around - swatch).sum(axis=1).min() < 90  # points are a little transparent


def test_pointing_at_a_point_shows_its_picture(page):
    for row in (5, 77, 201):
        page.mouse.move(*at(page, row))
        page.wait_for_selector(f"#card[data-row='{row}'] img[src]")
        assert page.text_content("#card .name") == WHOLE.vectors.names[row]
        assert np.abs(np.array(shown_colour(page, "#card img")) - colour(row)).max() <= 4
    page.mouse.move(*at(page, 0))
    page.wait_for_selector("#card[data-row='0']")
    assert page.text_content("#card .name") == BITING
    assert page.query_selector("#card .name img") is None
    page.mouse.move(2, 2)
    page.wait_for_selector("#card", state="hidden")


def test_a_click_shows_the_neighbours(page):
    page.mouse.click(*at(page, 33))
    similarities, rows = WHOLE.neighbours(33, 34)
    assert listed(page, 12) == rows[0].tolist()
    notes = page.eval_on_selector_all("#panel .note", "all => all.map(n => n.textContent)")
    assert notes == [f"{value:.3f}" for value in similarities[0]]
    page.click("#panel .pictures button >> nth=2")  # and so on, from neighbour to neighbour
    page.wait_for_function(
        "name => document.querySelector('#panel figcaption')?.textContent === name", arg=WHOLE.vectors.names[rows[0, 2]]
    )


def clear_of_points():
    """Corners of a line that no point lies nearer to than two pixels: a mouse is told of whole ones."""
    random = np.random.default_rng(0)
    while True:
        turns = np.sort(random.uniform(0, 2 * np.pi, 7))
        corners = random.uniform(0.3, 0.9, (7, 1)) * np.stack([np.cos(turns), np.sin(turns)], 1)
        near = [Polygon(corners).contains_points(POSITIONS, radius=radius) for radius in (-0.007, 0.007)]
        if (near[0] == near[1]).all() and 40 < near[0].sum() < 200:
            return corners.tolist()


def test_a_lasso_chooses_what_lies_inside(page):
    corners = clear_of_points()
    box = page.locator("#map").bounding_box()
    scale = 0.92 * min(box["width"], box["height"]) / 2
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    pixels = [(middle[0] + x * scale, middle[1] - y * scale) for x, y in corners]
    page.click("#lasso")
    page.mouse.move(*pixels[0])
    page.mouse.down()
    for pixel in pixels[1:]:
        page.mouse.move(*pixel)
    page.mouse.up()
    inside = Polygon(corners).contains_points(POSITIONS)
    assert page.text_content("#panel h2") == f"{inside.sum()} pictures"
    with page.expect_download() as waiting:
        page.click("#download")
    with open(waiting.value.path(), encoding="utf-8", newline="") as file:
        table = [*csv.DictReader(file)]
    assert [int(line["row"]) for line in table] == np.flatnonzero(inside).tolist()
    assert [line["name"] for line in table] == [WHOLE.vectors.names[row] for row in np.flatnonzero(inside)]
    assert [line["label"] for line in table] == [CLASSES[row % 3] for row in np.flatnonzero(inside)]


def test_colours_by_split_cluster_and_score(page):
    page.select_option("#scheme", "split")
    page.wait_for_function("() => document.querySelectorAll('#legend button').length === 2")
    assert page.text_content("#legend ul") == "test40train200"
    page.select_option("#scheme", "outlier")
    page.wait_for_selector("#legend .scale")
    assert "Local outlier factor" in page.text_content("#legend")
    page.select_option("#scheme", "cluster")
    page.wait_for_function("() => document.querySelectorAll('#legend button').length === 3")
    page.click("#legend button >> nth=1")
    assert page.get_attribute("#legend button >> nth=1", "aria-pressed") == "true"
    page.click("#legend button >> nth=1")
    assert page.get_attribute("#legend button >> nth=1", "aria-pressed") == "false"


def test_search_by_name_and_names_that_bite(page):
    page.fill("#search", "ONERROR")
    assert listed(page, 1) == [0]
    assert page.text_content("#panel .pictures .name") == BITING
    page.fill("#search", "gnp")
    page.wait_for_function("() => document.querySelector('#panel .pictures .name')?.textContent.startsWith('exe')")
    assert page.text_content("#panel .pictures .name") == "exe\ufffdgnp.png"
    page.fill("#search", "bee/")
    assert listed(page, 79)[:3] == [4, 7, 10]
    page.fill("#search", "wasp")
    page.wait_for_function("() => document.querySelector('#panel h2').textContent === 'Nothing found'")


def test_a_picture_from_outside_is_placed_and_anything_else_is_refused(page, watched):
    buffer = io.BytesIO()
    Image.new("RGB", (25, 25), (1, 2, 3)).save(buffer, "PNG")
    page.set_input_files("#file", {"name": "<b>mine</b>.png", "mimeType": "image/png", "buffer": buffer.getvalue()})
    expected = WHOLE.place(buffer.getvalue())
    assert listed(page, 12) == expected["rows"]
    assert page.text_content("#panel figcaption") == "<b>mine</b>.png"
    page.set_input_files("#file", {"name": "letter.txt", "mimeType": "text/plain", "buffer": b"dear"})
    page.wait_for_selector("#problem")
    assert "this file has no place on the map: not a picture" in page.text_content("#problem")
    assert "422" in watched.said.pop()  # the browser's own line on such an answer; the page has no other complaint


def test_all_can_be_done_by_keys(page):
    page.locator("#map").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("#aim")
    for _ in range(4):  # the middle of the map itself may be empty: shrink it until a point is near enough
        if page.is_visible("#card"):
            break
        page.keyboard.press("-")
    assert page.get_attribute("#card", "data-row") == str(np.linalg.norm(POSITIONS, axis=1).argmin())
    page.keyboard.press("Enter")
    assert len(listed(page, 12)) == 12
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.type("cat/")
    assert len(listed(page, 80)) == 80
    page.keyboard.press("Escape")
    page.wait_for_function("() => document.querySelector('#panel h2').textContent === 'The map'")
    page.locator("#map").focus()
    page.keyboard.press("0")
    page.keyboard.press("v")
    assert page.text_content("#panel h2") == "240 pictures"
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert reached == ["search", "scheme", "choose", "theme", "map", "lasso", "all", "fit"]
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_light_and_dark(page):
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) == "rgb(251, 250, 247)"
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(background) == "rgb(19, 21, 24)"
    page.click("#theme")
    assert page.evaluate(background) == "rgb(251, 250, 247)"
    page.reload()
    page.wait_for_selector(DRAWN)
    assert page.evaluate(background) == "rgb(251, 250, 247)"
    page.evaluate("localStorage.clear()")


def test_without_webgl_it_says_so(context, server):
    page = context.new_page()
    page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null; delete globalThis.OffscreenCanvas;")
    page.goto(server.address)
    page.wait_for_selector("html[data-ready]")
    page.wait_for_selector("#problem")
    assert "needs WebGL 2" in page.text_content("#problem")
    page.close()


def test_an_exported_folder_opens_without_a_server(context, tmp_path):
    export_static(vectors(COUNT), pictures(COUNT), tmp_path / "map", side=24)
    opened = Watched(context, (tmp_path / "map" / "index.html").as_uri())
    page = opened.page
    page.mouse.move(*at(page, 77))
    page.wait_for_selector("#card[data-row='77'] img[src]")
    assert np.abs(np.array(shown_colour(page, "#card img")) - colour(77)).max() <= 4
    page.mouse.click(*at(page, 33))
    assert listed(page, 12) == WHOLE.neighbours(33, 34)[1][0].tolist()
    page.select_option("#scheme", "outlier")
    page.wait_for_selector("#legend .scale")
    page.fill("#search", "onerror")
    assert listed(page, 1) == [0]
    assert page.is_hidden("#choose")
    assert opened.has_no_complaint()
    page.close()
