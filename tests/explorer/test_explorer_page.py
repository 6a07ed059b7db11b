"""The page in a real browser: what it draws, what pointer, keys and files do, and that nothing in a name runs."""

import csv
import io
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.path import Path as Polygon
from PIL import Image
from scenes import BITING, CLASSES, colour, pictures, scene, vectors

from diptych.explorer import desk
from diptych.explorer.explore import export_static
from diptych.explorer.later import Later
from diptych.explorer.scene import compose
from diptych.explorer.schemes import Scheme, categories
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
POSITIONS = WHOLE.layout.value().positions.astype(float)


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


def test_a_selection_as_a_table_has_every_class_and_no_formula(context):
    names = ["=cmd|'/C calc'!A0", "+1.5", "-1", "'@sum", "line\nbreak", 'quote"d', "\udce9.png", "e\u0301t\u00e9.png"]
    names += [f"{row}.png" for row in range(len(names), 40)]
    labels = [None, "+1", "-1", "=A1", *(f"class {row:02}" for row in range(4, 40))]
    many = vectors(40)
    with Server(compose(replace(many, names=names, labels=labels), None), 0) as server:
        opened = Watched(context, server.address)
        page = opened.page
        legend = page.eval_on_selector_all("#legend button", "all => all.map(b => b.textContent)")
        assert len(legend) == 22 and legend[20:] == ["19 others19", "no label1"]
        page.click("#all")
        with page.expect_download() as waiting:
            page.click("#download")
        with open(waiting.value.path(), encoding="utf-8", errors="surrogateescape", newline="") as file:
            table = [*csv.DictReader(file)]
        assert [line["name"] for line in table] == ["'" + names[0], names[1], names[2], "''@sum", *names[4:]]
        assert [line["label"] for line in table] == ["", "+1", "-1", "'=A1", *labels[4:]]
        page.fill("#search", "\u00e9te\u0301")  # the other way to write each letter
        assert listed(page, 1) == [7]
        page.click("#panel .pictures button")
        page.wait_for_function("() => document.querySelector('#panel .facts')?.textContent === 'labelclass 07'")
        assert opened.has_no_complaint()
        page.close()


def test_a_rare_class_is_told_by_its_own_name_and_a_name_cannot_steer_the_page(context):
    few = vectors(30)
    labels = [f"class {row:02}" for row in range(21)] + ["class 00"] * 9
    with Server(
        compose(replace(few, labels=labels, names=[*few.names[:5], "a\u202eb\n.png", *few.names[6:]]), None), 0
    ) as server:
        opened = Watched(context, server.address)
        page = opened.page
        legend = page.eval_on_selector_all("#legend button", "all => all.map(b => b.textContent)")
        assert legend[0] == "class 0010" and len(legend) == 21 and "others" not in legend[20]
        page.click("#legend button >> nth=20")
        assert page.get_attribute("#legend button >> nth=20", "aria-pressed") == "true"
        page.fill("#search", ".png")
        listed(page, 29)
        page.click("#panel .pictures button[data-row='5']")
        page.wait_for_function(
            "() => document.querySelector('#status').textContent === 'a\ufffdb\ufffd.png: 12 neighbours'"
        )
        assert page.text_content("#panel figcaption") == "a\ufffdb\ufffd.png"
        assert opened.has_no_complaint()
        page.close()


def test_what_takes_long_says_so_and_ends(context, monkeypatch):
    monkeypatch.setattr(desk, "PATIENCE", 0.05)
    go, scores = threading.Event(), threading.Event()
    whole = scene(30)
    slow = replace(whole, layout=Later("the map by UMAP", lambda: go.wait(60) and whole.layout.value()))
    slow.schemes["outlier"] = Scheme("outlier", "outlier score", lambda: scores.wait(60) and categories(["x"] * 30))
    with Server(slow, 0) as server:
        page = context.new_page()
        page.goto(server.address)
        page.wait_for_function(
            "() => /^Computing the map by UMAP … [0-9]+ s$/.test(document.querySelector('#busy').textContent)"
        )
        go.set()
        page.wait_for_selector(DRAWN)
        page.select_option("#scheme", "outlier")
        page.wait_for_function(
            "() => /^computing the colours by outlier score … [0-9]+ s$/.test(status())".replace(
                "status()", "document.querySelector('#status').textContent"
            )
        )
        page.select_option("#scheme", "cluster")  # meanwhile
        page.wait_for_function("() => document.querySelector('#status').textContent === 'coloured by cluster'")
        page.select_option("#scheme", "outlier")
        scores.set()
        page.wait_for_function("() => document.querySelector('#legend').textContent === 'x30'")
        page.close()


def test_a_server_that_is_gone_is_named(context):
    with Server(scene(30), 0) as server:
        page = context.new_page()
        page.goto(server.address)
        page.wait_for_selector(DRAWN)
    page.select_option("#scheme", "cluster")
    page.wait_for_selector("#problem")
    assert page.text_content("#problem") == "the server does not answer: is `diptych explore` still running?"
    assert page.input_value("#scheme") == "label"
    page.close()


def test_a_picture_beyond_the_map_is_shown_at_its_edge(context):
    narrow = vectors(30)
    narrow.values[:] = [10, 0, 0, 0, 0, 0, 0, 0] + np.random.default_rng(0).normal(0, 0.1, (30, 8))
    with Server(compose(narrow, None, embed=lambda content: np.eye(8, dtype=np.float32)[1]), 0) as server:
        page = context.new_page()
        page.goto(server.address)
        page.wait_for_selector(DRAWN)
        page.set_input_files("#file", {"name": "far.png", "mimeType": "image/png", "buffer": b"any"})
        page.wait_for_function(
            "() => document.querySelector('#panel .lede')?.textContent.startsWith('It lies beyond the edge')"
        )
        assert page.text_content("#status") == "far.png was placed at the edge of the map"
        page.close()


@pytest.mark.parametrize(("width", "height"), [(1400, 900), (800, 600), (844, 390), (390, 844)])
def test_everything_is_in_sight_on_large_and_small_screens(context, server, width, height):
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": height})
    page.goto(server.address)
    page.wait_for_selector(DRAWN)
    page.fill("#search", "cat/")
    listed(page, 80)
    assert page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]") == [
        width,
        height,
    ]
    for selector in (
        "#search",
        "#scheme",
        "#choose",
        "#theme",
        "#lasso",
        "#all",
        "#fit",
        "#panel h2",
        "#panel .pictures button",
    ):
        box = page.locator(selector).first.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width, selector
        assert box["y"] >= 0 and box["y"] + min(box["height"], 60) <= height, selector
    page.close()


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
    page.keyboard.press("Enter")
    assert len(listed(page, 80)) == 80
    assert page.evaluate("document.activeElement.dataset.row") == "2"
    page.keyboard.press("Enter")
    assert len(listed(page, 12)) == 12
    assert page.evaluate("document.activeElement.id") == "panel-title"  # and not lost with the button that had it
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
