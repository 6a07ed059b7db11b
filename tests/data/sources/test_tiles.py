import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from picture_files import encoded, noise, png16, tiff

from diptych.data.decoding.decode import decode
from diptych.data.decoding.pixels import BadPicture
from diptych.data.sources import tiles as module
from diptych.data.sources.source import Arrays, Entry, Files, Subset
from diptych.data.sources.tiles import Tiles


def files(contents, labels=None, groups=None, opened=None):
    def load(name):
        if opened is not None:
            opened.append(name)
        return contents[name]

    entries = [Entry(name, len(content), 0) for name, content in sorted(contents.items())]
    return Files("x", entries, load, labels, ("a", "b"), groups)


def names(source):
    return [source.name_of(index) for index in range(len(source))]


def test_a_grid_from_the_top_left_whose_partial_rows_and_columns_are_left_out():
    picture = noise(np.uint16, 3, 50, 70)
    source = Tiles(files({"p.png": png16(picture)}), 20)
    assert names(source) == [f"p.png@r{row},c{column}" for row in range(2) for column in range(3)]
    for index in range(6):
        row, column = divmod(index, 3)
        wanted = picture[:, 20 * row : 20 * row + 20, 20 * column : 20 * column + 20]
        assert np.array_equal(source.read(index), wanted) and source.read(index).dtype == np.uint16
    for outside in (6, -1):
        with pytest.raises(IndexError):
            source.read(outside)


@pytest.mark.parametrize(("height", "width", "shapes"), [(9, 45, [(9, 20)] * 2), (30, 5, [(20, 5)]), (3, 4, [(3, 4)])])
def test_a_picture_smaller_than_a_tile_keeps_its_whole_side(height, width, shapes):
    source = Tiles(files({"p.tif": tiff(noise(np.uint8, 5, height, width))}), 20)
    assert [source.read(index).shape[1:] for index in range(len(source))] == shapes
    assert [(header.height, header.width) for header in map(source.header, range(len(source)))] == shapes


@pytest.mark.parametrize("small", [0, 1 << 26])
@pytest.mark.parametrize(
    "layout", [{"tile": (16, 32)}, {"rowsperstrip": 8}, {"rowsperstrip": 8, "compression": "zlib"}]
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_tiles_of_a_tiff_whether_read_by_segment_by_strip_or_whole(monkeypatch, small, layout, orientation):
    monkeypatch.setattr(module, "SMALL", small)
    content = tiff(noise(np.float32, 2, 100, 90), extratags=[(274, 3, 1, orientation, True)], **layout)
    whole = decode(content, "x")
    source = Tiles(files({"p.tif": content}), 32)
    columns = whole.shape[2] // 32
    assert len(source) == (100 // 32) * (90 // 32)
    for index in range(len(source)):
        top, left = 32 * (index // columns), 32 * (index % columns)
        assert np.array_equal(source.read(index), whole[:, top : top + 32, left : left + 32])
    assert np.array_equal(source.region(1, 3, 4, 5, 6), source.read(1)[:, 3:8, 4:10])
    for outside in ((0, 0, 33, 1), (-1, 0, 2, 2), (0, 0, 0, 1)):
        with pytest.raises(BadPicture):
            source.region(0, *outside)


def test_labels_and_groups_come_from_the_picture():
    contents = {name: encoded("PNG") for name in ("a.png", "b.png")}
    source = Tiles(files(contents, [1, 0]), 16)  # 24 × 32: two tiles each
    assert [source.label(index) for index in range(4)] == [1, 1, 0, 0] and source.classes == ("a", "b")
    assert [source.group(index) for index in range(4)] == ["a.png", "a.png", "b.png", "b.png"]
    grouped = Tiles(files(contents, [1, 0], ["patient", "other"]), 16)
    assert [grouped.group(index) for index in range(4)] == ["patient", "patient", "other", "other"]


def test_the_fingerprint_changes_with_the_tile_and_with_the_pictures():
    source = files({"a.png": encoded("PNG")})
    found = {source.fingerprint, Tiles(source, 8).fingerprint, Tiles(source, 16).fingerprint}
    found.add(Tiles(files({"b.png": encoded("PNG")}), 8).fingerprint)
    assert len(found) == 4 and Tiles(source, 8).fingerprint == Tiles(source, 8).fingerprint


def test_a_picture_whose_header_cannot_be_read_stays_as_one_entry():
    contents = {"a.png": encoded("PNG"), "b.png": b"", "c.png": b"no picture", "d.png": encoded("PNG")}
    source = Tiles(files(contents, [0, 0, 1, 1]), 16)
    assert names(source) == ["a.png@r0,c0", "a.png@r0,c1", "b.png", "c.png", "d.png@r0,c0", "d.png@r0,c1"]
    assert source.label(3) == 1 and source.group(2) == "b.png"
    for use in (source.read, source.header, lambda index: source.region(index, 0, 0, 1, 1)):
        with pytest.raises(BadPicture, match=r"^b\.png: the file is empty$"):
            use(2)


def test_damage_behind_the_header_names_the_tile():
    content = encoded("PNG")
    source = Tiles(files({"a.png": content[:-40]}), 16)
    with pytest.raises(BadPicture, match=r"^a\.png@r0,c1: cut short or damaged"):
        source.read(1)


def test_neighbours_share_one_decoding_and_threads_too():
    opened = []
    source = Tiles(files({f"{place}.jpg": encoded() for place in range(3)}, opened=opened), 4)
    opened.clear()
    barrier = threading.Barrier(8)

    def work(start):
        barrier.wait()
        return [source.read(index) for index in range(start, len(source), 8)]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(8)))
    assert sorted(opened) == ["0.jpg", "1.jpg", "2.jpg"]
    assert np.array_equal(found[3][0], decode(encoded(), "x")[:, 0:4, 12:16])


def test_what_is_kept_is_bounded(monkeypatch):
    opened = []
    monkeypatch.setattr(module, "KEPT", 2 * 24 * 32 * 3)
    source = Tiles(files({f"{place}.png": encoded("PNG") for place in range(3)}, opened=opened), 24)
    opened.clear()
    for index in (0, 1, 0, 2, 0, 1):  # 1 was used longest ago when 2 came
        source.read(index)
    assert opened == ["0.png", "1.png", "2.png", "1.png"]


def test_a_tile_does_not_hold_the_picture_it_was_cut_from():
    source = Tiles(files({"a.png": encoded("PNG")}), 8)
    source.read(0)[:] = 7
    assert not (source.read(0) == 7).all()


def test_tiles_of_arrays_of_subsets_and_of_tiles():
    images = noise(np.uint8, 2 * 3, 16, 16).reshape(2, 3, 16, 16)
    source = Tiles(Subset(Arrays("x", images, [0, 1], ("a", "b")), [1]), 8)
    assert names(source) == [f"b/00001@r{row},c{column}" for row in range(2) for column in range(2)]
    assert np.array_equal(source.read(3), images[1, :, 8:, 8:])
    again = Tiles(source, 4)
    assert len(again) == 16 and np.array_equal(again.read(15), images[1, :, 12:, 12:])
