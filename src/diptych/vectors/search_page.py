"""What was found as a page: one HTML document that needs no network and runs no script.

File and class names are hostile input; each goes through ``markup``.
"""

import base64
from importlib import metadata
from pathlib import Path
from string import Template

from diptych.data.decoding.decode import decode
from diptych.data.decoding.pixels import BadPicture
from diptych.frozen import Picture
from diptych.markup import MINUS, name, style, text
from diptych.runs import write_text
from diptych.vectors.pictures import pictures_of, places
from diptych.vectors.search import Found
from diptych.vectors.table import Vectors
from diptych.vectors.thumbnails import MIME, encode, thumbnail

SIDE = 224
"""Pixels of the longer side of a thumbnail: twice those that it is shown at."""


def write_page(path: Path, found: Found, vectors: Vectors, query: Picture) -> None:
    """Write the page, whole or not at all.

    Args:
        path: where.
        found: of ``search``.
        vectors: that were searched; their card says where the pictures lie, and without one no picture is shown.
        query: as it was given to ``search``.

    Raises:
        DataError: the pictures are gone or have changed since they were embedded.
    """
    images: dict[int, bytes] = {}
    if vectors.card is not None:
        source = pictures_of(vectors.card)
        rows = sorted([hit.row for hit in found.hits] + ([] if found.row is None else [found.row]))
        for row, place in zip(rows, places(source, vectors.names, rows), strict=True):
            try:
                images[row] = thumbnail(source, place, SIDE)
            except BadPicture:  # it could be read when it was embedded
                continue
    asked = images.get(found.row) if found.row is not None else _query(query)
    write_text(path, render(found, images, asked))


def render(found: Found, images: dict[int, bytes], asked: bytes | None) -> str:
    """Return the whole page.

    Args:
        found: of ``search``.
        images: a thumbnail for the row of each picture that is shown.
        asked: that of the query.
    """
    template = Template(Path(__file__).with_name("search.html").read_text(encoding="utf-8"))
    hits = "".join(
        _figure(images.get(hit.row), hit.name, f"{hit.rank}", f"{hit.similarity:.4f}".replace("-", MINUS), hit.label)
        for hit in found.hits
    )
    return template.substitute(
        style=style(),
        query=name(found.query),
        title=text(found.query),
        asked=_figure(asked, found.query, "", "", None),
        lede=text(f"The {len(found.hits):,} most like it of {found.vectors:,} pictures; below each, the cosine."),
        how=text(f"Search: {found.how}."),
        hits=hits,
        version=text(metadata.version("diptych")),
    )


def _query(query: Picture) -> bytes | None:
    """Return the thumbnail of a query that is a file."""
    if not isinstance(query, str | Path):
        return None
    try:
        return encode(decode(Path(query), str(query), SIDE), SIDE)
    except BadPicture:
        return None


def _figure(image: bytes | None, picture: str, rank: str, similarity: str, label: str | None) -> str:
    if image is None:
        shown = '<div class="none" aria-hidden="true">–</div>'
    else:
        shown = f'<img src="data:{MIME};base64,{base64.b64encode(image).decode("ascii")}" alt="{text(picture)}">'
    told = f"<b>{text(rank)}</b> {text(similarity)}" if rank else ""
    told += f" · {name(label)}" if label is not None else ""
    lines = [f"<span>{told}</span>"] if told else []
    lines.append(f'<span class="file">{name(picture.rpartition("/")[2])}</span>')
    return f'<figure title="{text(picture)}">{shown}<figcaption>{"".join(lines)}</figcaption></figure>'
