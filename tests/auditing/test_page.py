"""The page runs nothing, whatever files and classes are called, and stands alone."""

from html.parser import HTMLParser

import numpy as np
import tifffile

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
    problems = [place for place, line in enumerate(text) if line.startswith("✗")]
    assert len(problems) >= 3
    for place, following in zip(problems, [*problems[1:], len(text)], strict=True):
        advice = [line for line in text[place:following] if line.startswith("  → ")]
        assert len(advice) == 1 and not advice[0].endswith("…")
    signs = [line[0] for line in text if line[:1] in "✗?✓" and line]
    assert signs == sorted(signs, key="✗?✓".index)


def made(*findings):
    """A result as the summary takes it, with these findings: severity, sentence, advice."""
    names = ("severity", "sentence", "advice")
    return {
        "data": "data", "pictures": 9, "bytes": 9, "formats": [], "kinds": [], "sizes": {"common": []},
        "page": "p.html", "findings": [dict(zip(names, one, strict=True)) for one in findings],
    }  # fmt: skip


def test_many_findings_are_counted_and_each_problem_shown_has_its_advice():
    problems = [("problem", f"Problem {k} " + "long " * 30 + "end.", f"Do {k}. Then more.") for k in range(9)]
    fine = [("fine", f"Number {k} was looked for and is not there at all.", "") for k in range(12)]
    lines = as_text(made(*problems, *fine)).splitlines()
    assert len(lines) <= 25
    shown = [line for line in lines if line.startswith("✗")]
    assert lines.count("  → Do 0.") == 1 and sum("→" in line for line in lines) == len(shown) > 2
    assert f"  … and {9 - len(shown)} findings more on the page" in lines
    told = " ".join(lines[next(k for k, line in enumerate(lines) if line.startswith("✓")) : -2])
    assert told.endswith("at all.") and "…" not in told and max(map(len, lines)) <= 100


def test_names_do_not_command_the_terminal(tmp_path):
    odd = "\x1b[2J\u202e\x9b31m"
    for name in (f"a{odd}", "b"):
        photos(tmp_path / "data" / name, 2 if name == "b" else 1, first=5 if name == "b" else 0)
    (tmp_path / f"x{odd}").mkdir()
    (tmp_path / "data").rename(tmp_path / f"x{odd}" / "data")
    told = as_text(audit(str(tmp_path / f"x{odd}" / "data"), tmp_path / f"x{odd}" / "out"))
    assert "a\ufffd[2J" in told and "x\ufffd[2J" in told.splitlines()[-1]
    assert not set("\x1b\u202e\x9b") & set(told)


def test_a_long_reason_is_shortened_and_kept_in_the_title(tmp_path):
    data = photos(tmp_path / "data", 1)
    write(data, page_jpg=b"<svg/>")
    result = audit(str(data), tmp_path / "out")
    (example,) = next(f for f in result["findings"] if f["key"] == "bad")["examples"]
    reason = example[0]["reason"]
    page = read(tmp_path / "out" / "audit.html")
    assert len(reason) > 60 and ("title", f"page.jpg: {reason}") in page.attributes
    assert reason not in page.text and reason[:40] in page.text


def test_channels_beyond_four_are_folded(tmp_path):
    (tmp_path / "data").mkdir()
    values = np.random.default_rng(0).integers(0, 99, (9, 9, 13)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "data" / "a.tif", values, photometric="minisblack", planarconfig="contig")
    audit(str(tmp_path / "data"), tmp_path / "out")
    page = read(tmp_path / "out" / "audit.html")
    assert page.tags.count("details") == 1 and "9 channels more" in page.text


def test_sizes_that_are_all_different_have_no_most_frequent(tmp_path):
    for count, told in ((1, False), (2, True)):
        data = tmp_path / str(count)
        data.mkdir()
        for number in range(3):
            write(data, **{f"{number}_png": encoded("PNG", photo(number, 64, 40 + number))})
        if count == 2:
            write(data, again_png=encoded("PNG", photo(9, 64, 40)))
        audit(str(data), tmp_path / f"out{count}")
        assert ("Most frequent" in read(tmp_path / f"out{count}" / "audit.html").text) is told
