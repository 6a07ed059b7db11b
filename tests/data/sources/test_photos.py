import numpy as np
import pytest
from PIL import Image

from diptych.data.sources import photos
from diptych.errors import DataError


@pytest.fixture(scope="module")
def cut():
    """Every photograph with the places of its patches."""
    loaded = [photos.load_photo(path) for path in photos.photo_files()]
    return [(photo, photos.patches(photo, number)) for number, photo in enumerate(loaded)]


def covered(places, height, width):
    """Mark the pixels of a photograph that lie in any of the patches: the slow and plain way."""
    mask = np.zeros((height, width), bool)
    for top, left in places:
        mask[top : top + photos.PATCH, left : left + photos.PATCH] = True
    return mask


def gap(first, second):
    """Pixels between the rectangles of two lists of places: ``(N, M)``; below 0 where they overlap."""
    apart = np.abs(first[:, None, :] - second[None, :, :]) - photos.PATCH
    return apart.max(axis=2)


def test_no_pixel_is_in_both_parts(cut):
    for photo, places in cut:
        _, height, width = photo.shape
        assert not (covered(places.train, height, width) & covered(places.test, height, width)).any()


def test_every_training_patch_keeps_its_distance_from_every_test_patch(cut):
    for _, places in cut:
        assert gap(places.train, places.test).min() >= photos.MARGIN > 0


def test_patches_lie_inside_their_photograph(cut):
    for photo, places in cut:
        for part in (places.train, places.test):
            assert part.min() >= 0
            assert (part + photos.PATCH <= photo.shape[1:]).all()


def test_both_parts_are_spread_over_the_photograph(cut):
    for photo, places in cut:
        middle = np.array(photo.shape[1:]) / 2
        for part in (places.train, places.test):
            quarters = {tuple(side) for side in (part + photos.PATCH / 2 > middle).tolist()}
            assert len(quarters) >= 2


def test_every_photograph_gives_enough_and_no_patch_twice(cut):
    for _, places in cut:
        assert len(places.train) == photos.TRAIN_PER_PHOTO
        assert 10 <= len(places.test) <= photos.TEST_PER_PHOTO
        for part in (places.train, places.test):
            assert len(np.unique(part, axis=0)) == len(part)


def test_sources_hold_the_patches_with_their_photograph_as_label(cut):
    train, test = photos.open_photos()
    assert train.classes == test.classes == tuple(path.stem for path in photos.photo_files())
    assert len(train.classes) == len(set(train.classes)) >= 16
    for source, part in ((train, "train"), (test, "test")):
        expected = [
            (photo[:, top : top + photos.PATCH, left : left + photos.PATCH], label)
            for label, (photo, places) in enumerate(cut)
            for top, left in getattr(places, part)
        ]
        assert len(source) == len(expected)
        for index, (patch, label) in enumerate(expected):
            assert (source.read(index) == patch).all()
            assert source.label(index) == label
        assert source.read(0).dtype == np.uint8
    assert train.fingerprint != test.fingerprint


def test_the_patches_are_always_the_same():
    first, second = photos.open_photos(), photos.open_photos()
    assert [source.fingerprint for source in first] == [source.fingerprint for source in second]


def test_large_photographs_are_made_smaller_and_small_ones_left(tmp_path):
    Image.new("L", (2000, 500), 128).save(tmp_path / "large.png")
    Image.new("L", (200, 50), 128).save(tmp_path / "small.png")
    assert photos.load_photo(tmp_path / "large.png").shape == (3, 160, 640)
    assert photos.load_photo(tmp_path / "small.png").shape == (3, 50, 200)  # gray is repeated to three channels


def test_a_missing_photograph_is_named(monkeypatch):
    monkeypatch.setattr(photos, "SKIMAGE", ("nosuchphoto.png",))
    with pytest.raises(DataError, match="nosuchphoto.png") as caught:
        photos.open_photos()
    assert "\n" not in str(caught.value)


def test_a_damaged_photograph_is_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match="broken.png"):
        photos.load_photo(tmp_path / "broken.png")


def test_test_patches_do_not_overlap_each_other(cut):
    for photo, places in cut:
        mask = covered(places.test, *photo.shape[1:])
        assert mask.sum() == len(places.test) * photos.PATCH**2
