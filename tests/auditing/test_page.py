"""The page runs nothing, whatever files and classes are called, and stands alone."""

from html.parser import HTMLParser

from auditing.made import encoded, photo, photos, write
from diptych.auditing.run import audit
from diptych.auditing.summary import as_text

HOSTILE = "<img src=x onerror=alert(1)>&\"'"


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def read(path):
    reader = Reader()
    reader.feed(path.read_text())
    return reader


def hostile(root):
    for name in (HOSTILE, "</title><script>alert(2)</script>", "javascript:alert(3)", "\u202egnp.exe"):
        folder = root / name.replace("/", "\u2215")
        folder.mkdir(parents=True)
        (folder / f"{HOSTILE}.jpg").write_bytes(b"broken")
        (folder / "same.jpg").write_bytes(encoded())
    odd = root / b"class \xfe".decode("utf-8", "surrogateescape")
    odd.mkdir()
    (odd / "own.jpg").write_bytes(encoded(picture=photo(1)))
    (root / HOSTILE / b"odd \xff name.jpg".decode("utf-8", "surrogateescape")).write_bytes(b"")
    return root


def test_hostile_names_run_nothing(tmp_path):
    result = audit(str(hostile(tmp_path / HOSTILE)), tmp_path / "out")
    page = read(tmp_path / "out" / "audit.html")
    assert "script" not in page.tags and not [name for name, _ in page.attributes if name.startswith("on")]
    images = [value for name, value in page.attributes if name in ("src", "href")]
    assert images and all(value.startswith("data:image/webp;base64,") for value in images)
    assert HOSTILE in page.text and "\u202e" not in page.text
    assert "default-src 'none'" in (tmp_path / "out" / "audit.html").read_text()
    assert result["readable"] == 5 and "class \ufffd" in {one["name"] for one in result["classes"]}


def test_the_page_names_every_finding_and_every_class(tmp_path):
    for number, name in enumerate(("cats", "dogs")):
        photos(tmp_path / "data" / name, 3, first=10 * number)
    write(tmp_path / "data", cats__copy_jpg=(tmp_path / "data/cats/0000.jpg").read_bytes())
    result = audit(str(tmp_path / "data"), tmp_path / "out")
    page = read(tmp_path / "out" / "audit.html")
    for finding in result["findings"]:
        assert finding["sentence"] in page.text
        assert finding["advice"] in page.text
    assert "cats" in page.text and "dogs" in page.text
    assert "$" not in page.text


def test_a_page_of_many_findings_stays_small(tmp_path):
    data = photos(tmp_path / "data", 60)
    for path in list(data.iterdir()):
        (data / f"copy-{path.name}").write_bytes(path.read_bytes())
    audit(str(data), tmp_path / "out")
    assert (tmp_path / "out" / "audit.html").stat().st_size < 400_000


def test_nothing_readable_still_makes_a_page(tmp_path):
    write(tmp_path / "data", a_jpg=b"", b_jpg=b"x")
    result = audit(str(tmp_path / "data"), tmp_path / "out")
    assert "cannot be read" in read(tmp_path / "out" / "audit.html").text
    assert "2 pictures" in as_text(result)


def test_the_summary_fits_a_screen_and_ends_with_the_page(tmp_path):
    data = tmp_path / "data"
    content = encoded()
    for part in ("train", "test"):
        write(data / part, a__1_jpg=content, b__1_jpg=content, b__2_jpg=content[:-200], c__3_png=encoded("PNG"))
        write(data / part, a__4_png=encoded("PNG", photo(3, 300, 20)), c__5_png=encoded("PNG", photo(4, 5, 5)))
        write(data / part, a__6_jpg=encoded("PNG", photo(5)), b__7_jpg=encoded(picture=photo(6).convert("CMYK")))
        write(data / part, a__8_png=encoded("PNG", photo(7).convert("L")), **{f"only{part}__9_png": encoded("PNG")})
    text = as_text(audit(str(data), tmp_path / "out")).splitlines()
    assert len(text) <= 25 and max(map(len, text[1:-1])) <= 100
    assert text[-1].endswith(str(tmp_path / "out" / "audit.html"))
    signs = [line[0] for line in text if line[:1] in "✗?✓" and line]
    assert signs == sorted(signs, key="✗?✓".index)
