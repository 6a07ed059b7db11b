import numpy as np
import pytest
import torch
from PIL import Image

from diptych import figures
from diptych.errors import RunFolderError


def pictures(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGBA"))


def test_view_pairs_keep_every_pixel_of_small_pictures(tmp_path):
    originals = pictures(1, 3, 32, 32)
    white = torch.ones(1, 3, 32, 32)
    figures.view_pairs(tmp_path / "views.png", originals, [originals.float() / 255, white])
    drawn = pixels(tmp_path / "views.png")
    exact = originals[0].permute(1, 2, 0).numpy().repeat(4, axis=0).repeat(4, axis=1)
    side, step = 128, 128 + 14
    tops = [top for top in range(drawn.shape[0] - side) if (drawn[top : top + side, :side, :3] == exact).all()]
    assert len(tops) == 1
    # The first view returns to the very same bytes, and the second stands beside it.
    assert (drawn[tops[0] : tops[0] + side, step : step + side, :3] == exact).all()
    assert (drawn[tops[0] : tops[0] + side, step + 132 : step + 132 + side] == 255).all()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(("count", "views", "size"), [(1, 2, 32), (8, 2, 224), (5, 4, 96), (2, 2, 300)])
def test_view_pairs_of_any_number_and_size(tmp_path, count, views, size):
    figures.view_pairs(tmp_path / "v.png", pictures(count, 3, size, size), [torch.rand(count, 3, size, size)] * views)
    drawn = pixels(tmp_path / "v.png")
    assert drawn.shape[1] < 1300
    assert drawn[0, -1, 3] == 0  # transparent, for light and dark pages


def solid(count, side, *colour):
    return torch.tensor(colour)[None, :, None, None].expand(count, -1, side, side)


def test_local_views_are_drawn_smaller_two_above_each_other_and_named_once(tmp_path):
    large, local = [solid(2, 32, 1.0, 0.0, 0.0)] * 2, [solid(2, 16, 0.0, 0.0, 1.0)] * 3
    figures.view_pairs(tmp_path / "v.png", pictures(2, 3, 32, 32), large + local)
    drawn = pixels(tmp_path / "v.png")
    red, blue = ((drawn == (*colour, 255)).all(axis=2) for colour in ((255, 0, 0), (0, 0, 255)))
    assert red.sum() == 2 * 2 * 128**2
    assert blue.sum() == 2 * 3 * 64**2
    rows, columns = blue.nonzero()
    # Two groups side by side, each with two squares above each other; the third stands beside.
    assert len(np.unique(columns)) == 2 * 2 * 64 and columns.min() > 2 * 128 + 14
    assert len(np.unique(rows)) == 2 * 64


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_other_channels_than_three_can_be_seen(tmp_path, channels):
    for dtype in (torch.uint8, torch.uint16, torch.float32):
        originals = pictures(2, channels, 24, 24).to(dtype)
        figures.view_pairs(tmp_path / "v.png", originals, [torch.rand(2, channels, 24, 24)] * 2)
        drawn = pixels(tmp_path / "v.png")
        cell = drawn[31 : 31 + 120, :120, :3]
        assert cell.min() == 0 and cell.max() == 255
        assert (cell == cell[:, :, :1]).all() == (channels < 3)


def test_deep_pictures_of_few_values_fill_the_range_and_say_so(tmp_path):
    twelve_bits = pictures(2, 1, 24, 24).to(torch.uint16)
    views = [twelve_bits.float() / 65535] * 2
    figures.view_pairs(tmp_path / "v.png", twelve_bits, views)
    drawn = pixels(tmp_path / "v.png")
    side = 5 * 24
    original, view = drawn[31 : 31 + side, :side], drawn[31 : 31 + side, side + 14 : 2 * side + 14]
    assert np.abs(original.astype(int) - view).max() <= 1 and original[..., 0].std() > 50
    figures.view_pairs(tmp_path / "8.png", twelve_bits.to(torch.uint8), views)
    assert drawn.shape[0] > pixels(tmp_path / "8.png").shape[0]  # a line more: the caption


def test_a_sheet_shows_every_policy(tmp_path):
    colours = [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0)]
    rows = [
        ("natural", "Photographs.", pictures(3, 3, 32, 32), [solid(3, 32, *colours[0])] * 2),
        ("a policy $of$ mine", "Never. " * 50, pictures(1, 3, 32, 32), [solid(1, 32, *colours[1])] * 2),
    ]
    figures.policy_sheet(tmp_path / "sheet.png", rows)
    drawn = pixels(tmp_path / "sheet.png")
    red, blue = ((drawn[..., :3] == np.array(colour) * 255).all(axis=2) & (drawn[..., 3] == 255) for colour in colours)
    assert (red.sum(), blue.sum()) == (3 * 2 * 128**2, 2 * 128**2)
    assert red.nonzero()[0].max() < blue.nonzero()[0].min()
    ink = (drawn[..., 3] > 0) & (drawn[..., 0] == 0x7A)
    assert ink[:25].any() and ink[25:50].any()  # the name, and when to choose it
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("channels", [1, 3, 13])
@pytest.mark.parametrize("local", [0, 4])
@pytest.mark.parametrize("size", [32, 64, 96, 224])
def test_a_sheet_is_as_wide_as_can_be_read_and_no_longer_than_a_page(tmp_path, size, local, channels):
    views = [torch.rand(8, channels, size, size)] * 2 + [torch.rand(8, channels, size // 2, size // 2)] * local
    said = "Photographs of things and scenes that stand upright, whose colours depend on the light. " * 2
    rows = [(name, said, pictures(8, channels, size, size), views) for name in "abcd"]
    figures.policy_sheet(tmp_path / "sheet.png", rows)
    height, width, _ = pixels(tmp_path / "sheet.png").shape
    assert 700 < width < 1250 and height < 1800
    figures.view_pairs(tmp_path / "pairs.png", *rows[0][2:])
    height, width, _ = pixels(tmp_path / "pairs.png").shape
    assert 600 < width < 1250 and height < 700


def test_a_sheet_of_one_picture_is_wide_enough_for_its_sentences(tmp_path):
    said = " ".join(f"word{number}" for number in range(16))
    assert figures._wrapped(said, figures.NARROWEST)[1].endswith("word15")
    rows = [("natural", said, pictures(1, 3, 32, 32), [solid(1, 32, 1.0, 0.0, 0.0)] * 2)]
    figures.policy_sheet(tmp_path / "sheet.png", rows)
    drawn = pixels(tmp_path / "sheet.png")
    assert drawn.shape[1] == figures.NARROWEST + 8
    ink = ((drawn[..., 3] > 0) & (drawn[..., 0] == 0x7A)).any(axis=1)
    lines = [slice(0, 25), slice(25, 49), slice(49, 73)]
    assert all(ink[line].any() for line in lines)  # the name, and two lines


def test_text_is_wrapped_between_words_and_the_last_line_keeps_the_rest():
    assert figures._wrapped("", 100) == []
    assert figures._wrapped("word " * 3, 1e9) == ["word word word"]
    first, last = figures._wrapped("word " * 40, 200)
    assert len(first) < len(last) and len(f"{first} {last}") == 40 * 5 - 1
    assert figures._wrapped("x" * 500, 100) == ["x" * 500]


def test_views_may_be_smaller_than_the_originals(tmp_path):
    figures.view_pairs(tmp_path / "v.png", pictures(2, 3, 64, 48), [torch.rand(2, 3, 32, 32)] * 2)
    assert pixels(tmp_path / "v.png").any()


def test_neighbors_frames_tell_agreement(tmp_path):
    queries, nearest = torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.zeros(2, 2, 3, 32, 32, dtype=torch.uint8)
    figures.neighbors(tmp_path / "n.png", queries, nearest, ["a", "b"], [["a", "a"], ["b", "a"]], torch.rand(2, 2))
    drawn = pixels(tmp_path / "n.png")[..., :3].reshape(-1, 3)
    colors = [tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in (figures.AGREES, figures.DIFFERS)]
    green, red = ((drawn == color).all(axis=1).sum() for color in colors)
    assert green > red > 0  # three agree; the frame of the other is dashed


@pytest.mark.parametrize("name", ["$\\frac{1$", "$x$", "狗", "a\nb\x00c", "", "x" * 300, "<b>&", "\ud800"])
def test_any_class_name_can_be_drawn(tmp_path, name):
    figures.neighbors(
        tmp_path / "n.png", pictures(1, 3, 8, 8), pictures(1, 1, 3, 8, 8), [name], [[name]], torch.ones(1, 1)
    )
    assert pixels(tmp_path / "n.png").any()


def test_mistakes_keep_their_pixels_and_their_block(tmp_path):
    """Two solid pictures in the upper block, one in the lower, none enlarged beyond whole factors."""
    upper, lower = (solid(count, 32, *colour).mul(255).byte() for count, colour in ((2, (1, 0, 0)), (1, (0, 0, 1))))
    said = [("cat", "dog"), ("$x^", "<b>")]
    figures.mistakes(tmp_path / "m.png", [("put right", upper, said), ("spoiled", lower, said[:1])])
    drawn = pixels(tmp_path / "m.png")
    red, blue = ((drawn == (*colour, 255)).all(axis=2) for colour in ((255, 0, 0), (0, 0, 255)))
    assert red.sum() == 2 * 128**2 and blue.sum() == 128**2
    assert red.nonzero()[0].max() < blue.nonzero()[0].min()
    figures.mistakes(tmp_path / "one.png", [("put right", upper[:0], []), ("spoiled", lower, said[:1])])
    assert (pixels(tmp_path / "one.png")[..., :3] == (0, 0, 255)).all(axis=2).sum() == 128**2


@pytest.mark.parametrize("steps", [0, 1, 50])
def test_loss_curve(tmp_path, steps):
    figures.loss_curve(tmp_path / "loss.png", [{"epoch": i / 10, "loss": -i / 50} for i in range(steps)])
    assert pixels(tmp_path / "loss.png").shape == (576, 1024, 4)


def test_drawing_is_repeatable(tmp_path):
    for name in ("a.png", "b.png"):
        figures.view_pairs(tmp_path / name, pictures(2, 3, 32, 32), [torch.zeros(2, 3, 32, 32)] * 2)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot write"):
        figures.loss_curve(tmp_path / "file" / "loss.png", [])
