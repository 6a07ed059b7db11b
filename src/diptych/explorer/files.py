"""The page that was built from ``web/`` and lies in ``static/``: installing needs no JavaScript tools."""

from pathlib import Path

STATIC = Path(__file__).with_name("static")
KINDS = {
    "index.html": "text/html; charset=utf-8",
    "explorer.js": "text/javascript; charset=utf-8",
    "explorer.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "LICENSES.txt": "text/plain; charset=utf-8",
}
"""The files of the page, and what they are."""


def page_files() -> dict[str, bytes]:
    """Read the files of the page, by name."""
    return {name: (STATIC / name).read_bytes() for name in KINDS}
