"""The page that is in the repository is the one that its sources make; what is inside may run where no eval may."""

import hashlib
import json
import re

from diptych.explorer.files import KINDS, STATIC, page_files

WEB = STATIC.with_name("web")
LARGEST = 1_500_000


def test_the_page_was_built_from_these_sources():
    names = [
        "build.mjs",
        "package.json",
        "package-lock.json",
        *(f"src/{path.name}" for path in (WEB / "src").iterdir()),
    ]
    found = hashlib.sha256()
    for name in sorted(names):
        found.update(f"{name}\n".encode() + (WEB / name).read_bytes())
    record = json.loads((STATIC / "built.json").read_text())
    assert found.hexdigest() == record["sources"], "the sources of the page have changed: type `make web`"
    assert record["files"] == {name: hashlib.sha256(content).hexdigest() for name, content in page_files().items()}


def test_the_page_is_small_and_names_every_file():
    assert {path.name for path in STATIC.iterdir()} == {*KINDS, "built.json"}
    assert sum(map(len, page_files().values())) < LARGEST


def test_no_script_is_made_of_text_at_run_time():
    script = page_files()["explorer.js"].decode()
    assert not re.search(r"\bnew Function\b|\beval\(|\bFunction\(", script)
    own = "".join(path.read_text() for path in (WEB / "src").glob("*.js"))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|setTimeout\(\s*[\"'`]", own)


def test_the_page_itself_loads_nothing_from_elsewhere_and_holds_no_script():
    page = page_files()["index.html"].decode()
    assert not re.search(r"https?://|\bon\w+=|style=|<script(?! defer src=\"explorer\.js\"></script>)", page)
    assert "url(" not in page_files()["explorer.css"].decode()


def test_every_package_inside_is_locked_and_its_licence_lies_beside():
    licences = page_files()["LICENSES.txt"].decode()
    locked = json.loads((WEB / "package-lock.json").read_text())["packages"]
    inside = re.findall(r"^(\S+) (\d[\w.]*) \(([^)]+)\) ", licences, re.MULTILINE)
    assert {"@deck.gl/core", "@deck.gl/layers", "@luma.gl/webgl"} <= {name for name, _, _ in inside}
    for name, version, licence in inside:
        assert locked[f"node_modules/{name}"]["version"] == version
        assert licence in ("MIT", "Apache-2.0", "ISC", "BSD-3-Clause", "BSD-2-Clause", "0BSD")
        assert locked[f"node_modules/{name}"]["integrity"].startswith("sha512-")
