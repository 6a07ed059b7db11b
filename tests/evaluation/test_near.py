"""Photographs that ship with scikit-image and scikit-learn, cut small: each edit of them is found, and nothing else."""

import io

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.fft import dctn
from sklearn.datasets import load_digits, load_sample_images

from diptych.data.decoding.pixels import LUMA
from diptych.evaluation import near
from diptych.evaluation.near import ALIKE, CANDIDATES, near_pairs


@pytest.fixture(scope="module")
def photographs():
    samples = load_sample_images().images
    return [skimage.data.astronaut(), skimage.data.chelsea(), skimage.data.rocket(), *samples, skimage.data.coffee()]


def cut(photographs, side, step):
    """Squares of the photographs, ``(N, 3, 32, 32)``."""
    return np.stack(
        [
            array(Image.fromarray(photo[top : top + side, left : left + side]).resize((32, 32), Image.Resampling.BOX))
            for photo in photographs
            for top in range(0, photo.shape[0] - side + 1, step)
            for left in range(0, photo.shape[1] - side + 1, step)
        ]
    )


@pytest.fixture(scope="module")
def pictures(photographs):
    """Squares in which something is to be seen, ``(N, 3, 32, 32)``, in random order."""
    squares = torch.from_numpy(cut(photographs[:5], 128, 64))  # without the cup, each half of which shows the other
    squares = squares[torch.randperm(len(squares), generator=torch.Generator().manual_seed(0))]
    grays = near._gray(squares).float()
    return squares[(near._independent(grays) > 15) & (grays.std((1, 2)) > 20)]


def array(picture):
    return np.asarray(picture).transpose(2, 0, 1)


def image(picture):
    return Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))


def recompressed(picture, quality):
    buffer = io.BytesIO()
    image(picture).save(buffer, "JPEG", quality=quality)
    return array(Image.open(buffer))


def trimmed(picture, left, top, right, bottom):
    box = (left, top, 32 - right, 32 - bottom)
    return array(image(picture).crop(box).resize((32, 32), Image.Resampling.BILINEAR))


def resized(picture, side):
    small = image(picture).resize((side, side), Image.Resampling.BICUBIC)
    return array(small.resize((32, 32), Image.Resampling.BICUBIC))


EDITS = {
    "the same": lambda p: p,
    "JPEG 75": lambda p: recompressed(p, 75),
    "JPEG 30": lambda p: recompressed(p, 30),
    "a pixel off": lambda p: trimmed(p, 1, 1, 1, 1),
    "two pixels off": lambda p: trimmed(p, 2, 2, 2, 2),
    "a corner off": lambda p: trimmed(p, 0, 2, 2, 0),
    "the other corner off": lambda p: trimmed(p, 2, 0, 0, 2),
    "brighter": lambda p: np.clip(p * 1.3, 0, 255).astype(np.uint8),
    "darker and flatter": lambda p: (p * 0.6 + 10).astype(np.uint8),
    "gray": lambda p: np.tensordot(LUMA, p, 1).astype(np.uint8)[None].repeat(3, 0),
    "mirrored": lambda p: p[:, :, ::-1].copy(),
    "mirrored and trimmed": lambda p: trimmed(p[:, :, ::-1], 1, 1, 1, 1),
    "smaller and back": lambda p: resized(p, 24),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edited_copy_is_found_and_no_other_picture(pictures, edit):
    wanted = torch.arange(0, len(pictures), 4)
    tested = torch.from_numpy(np.stack([edit(pictures[place].numpy()) for place in wanted]))
    found = near_pairs(pictures, tested)
    right = wanted[found.pairs[:, 0]] == found.pairs[:, 1]
    assert right.sum() >= 0.93 * len(wanted) and right.all()
    assert found.likeness.min() >= ALIKE and found.likeness.max() <= 1.001
    assert found.pairs.tolist() == sorted(found.pairs.tolist())


def test_different_pictures_of_one_photograph_are_not_near(photographs):
    # At a scale at which a patch is often no more than an edge on an even ground.
    squares = cut(photographs, 32, 32)
    order = np.random.default_rng(0).permutation(len(squares))
    tested, learned = squares[order[:400]], squares[order[400:]]
    found = near_pairs(torch.from_numpy(learned), torch.from_numpy(tested))
    assert len(learned) > 500 and len(found.pairs) <= 2  # neighbours along the rim of a cup and of its saucer


def test_where_all_pictures_are_framed_alike_more_is_asked_for():
    digits = torch.from_numpy(load_digits().images * 255 / 16).round().to(torch.uint8)[:, None]
    tested, learned = digits[:300], digits[300:]
    assert len(near_pairs(learned, tested).pairs[:, 0].unique()) <= 2
    both = near._look(tested), near._look(learned)
    pairs = near._by_waves(*both).unique()
    pairs = torch.stack([pairs // len(learned), pairs % len(learned)], 1)
    likeness, _ = near._likeness(*both, pairs, torch.zeros(len(pairs), dtype=torch.bool))
    assert len(pairs[likeness >= ALIKE, 0].unique()) > 100  # the correlation alone would call a third of them near


def test_features_find_what_has_moved_too_far_for_the_pixels(photographs):
    photo = np.asarray(Image.fromarray(photographs[0]).resize((256, 256), Image.Resampling.BOX)).transpose(2, 0, 1)
    corners = [(top, left) for top in range(4, 216, 24) for left in range(4, 216, 24)]
    learned, tested = (
        torch.from_numpy(np.stack([photo[:, t + by : t + by + 32, le + by : le + by + 32] for t, le in corners]))
        for by in (0, 3)
    )
    features = torch.eye(len(corners))
    plain, helped = near_pairs(learned, tested), near_pairs(learned, tested, (features, features))
    right = {tuple(pair) for pair in helped.pairs.tolist()}
    assert right > {tuple(pair) for pair in plain.pairs.tolist()}
    assert all(test == train for test, train in right)


def test_the_low_frequencies_are_compared_both_ways_round(pictures):
    def slowly(picture):
        gray = np.rint(np.tensordot(np.float32(LUMA), picture.numpy().astype(np.float32), 1))
        low = dctn(gray)[:8, :8]
        low *= np.hypot(*np.mgrid[:8, :8]) ** 0.5
        return (low / np.linalg.norm(low)).ravel()

    tested, learned = pictures[:20], pictures[20:]
    there = np.stack([slowly(picture) for picture in learned])
    ways = [np.stack([slowly(picture) for picture in part]) @ there.T for part in (tested, tested.flip(-1))]
    both = near._look(tested), near._look(learned)
    pairs = torch.cartesian_prod(torch.arange(len(tested)), torch.arange(len(learned)))
    similar, mirrored = near._similar(*both, pairs)
    np.testing.assert_allclose(similar.view(20, -1), np.maximum(*ways), atol=1e-5)
    clear = np.abs(ways[0] - ways[1]) > 1e-4
    assert (mirrored.view(20, -1).numpy() == (ways[1] > ways[0]))[clear].all()
    proposed = near._by_waves(*both).view(20, CANDIDATES) % len(learned)
    wanted = np.argsort(-np.maximum(*ways), axis=1)[:, :CANDIDATES]
    assert np.sort(proposed.numpy(), 1).tolist() == np.sort(wanted, 1).tolist()


def test_a_fit_is_least_squares_on_the_picture_and_its_tangents(pictures):
    one, other = (near._halved(near._gray(pictures[some]).float()) for some in ([0], [8]))
    correlation, moves = near._fit(one, other, near._shapes)
    down, right = np.gradient(other[0].numpy())
    along = (np.arange(16) - 7.5) / 8
    columns = np.stack([other[0].numpy(), right, down, right * along, down * along[:, None]])
    columns = columns[:, 1:-1, 1:-1].reshape(5, -1).T
    columns -= columns.mean(0)
    target = one[0, 1:-1, 1:-1].flatten().numpy()
    factors, *_ = np.linalg.lstsq(columns, target - target.mean(), rcond=None)
    assert factors[0] > 0.1
    assert correlation.item() == pytest.approx(np.corrcoef(columns @ factors, target)[0, 1], abs=2e-3)
    np.testing.assert_allclose(moves[0], factors[1:] / factors[0], rtol=0.02, atol=0.02)
    inverted, _ = near._fit(255 - one, other, near._shapes)
    assert inverted.item() == pytest.approx(-correlation.item(), abs=1e-4)  # a negative is no copy


def test_moving_undoes_a_cut(pictures):
    some = pictures[:100]
    trimmed_ = torch.from_numpy(np.stack([trimmed(picture.numpy(), 2, 2, 2, 2) for picture in some]))
    still, moved = near._gray(trimmed_).float(), near._gray(some).float()
    before = near._fit(near._halved(still), near._halved(moved), near._edges)[0]
    after = near._aligned(still, moved)
    assert before.median() < 0.85 and after.quantile(0.05) > 0.95


def test_independent_values_are_few_where_little_is_to_be_seen():
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    edge, corner = (columns > 13) * 200.0, ((rows < 7) & (columns < 9)) * 200.0
    noise = torch.from_numpy(np.random.default_rng(0).normal(128, 40, (64, 32, 32))).float()
    few = near._independent(torch.stack([edge, corner]))
    many = near._independent(noise)
    assert (few < 12).all() and 40 < many.median() < 196 / 3
    inner = noise[0].reshape(16, 2, 16, 2).mean((1, 3))[1:-1, 1:-1].numpy()
    spectrum = (dctn(inner, norm="ortho") * np.hypot(*np.mgrid[:14, :14])) ** 2
    assert many[0].item() <= spectrum.sum() ** 2 / (spectrum**2).sum() * 1.001


def test_flat_pictures_are_like_none():
    flat = torch.full((4, 3, 16, 16), 90, dtype=torch.uint8)
    assert len(near_pairs(flat, flat).pairs) == 0
    noisy = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (9, 3, 16, 16), dtype=np.uint8))
    assert len(near_pairs(flat, noisy).pairs) == len(near_pairs(noisy, flat).pairs) == 0


@pytest.mark.parametrize("dtype", [torch.uint16, torch.float32])
def test_pictures_of_other_depths_are_compared_alike(pictures, dtype):
    gray = pictures.float().mean(1, keepdim=True)
    learned = (gray * 11).to(dtype)
    tested = (gray[:40] * 3 + 100).to(dtype)
    found = near_pairs(learned, tested).pairs
    assert len(found) >= 38 and (found[:, 0] == found[:, 1]).all()


def test_the_size_of_a_block_does_not_matter(pictures, monkeypatch):
    learned, tested = (
        pictures[:50],
        torch.from_numpy(np.stack([EDITS["a pixel off"](picture.numpy()) for picture in pictures[:20]])),
    )
    found = near_pairs(learned, tested)
    monkeypatch.setattr(near, "_PIXELS_AT_ONCE", 9 * 3 * 32 * 32)
    monkeypatch.setattr(near, "_SIMILARITIES_AT_ONCE", 3 * len(learned))
    monkeypatch.setattr(near, "_PAIRS_AT_ONCE", 17)
    apart = near_pairs(learned, tested)
    assert apart.pairs.tolist() == found.pairs.tolist() and len(found.pairs) >= 19
    torch.testing.assert_close(apart.likeness, found.likeness, atol=1e-3, rtol=0)


def test_one_picture_is_compared_with_one(pictures):
    assert near_pairs(pictures[:1], pictures[1:2]).pairs.shape == (0, 2)


def test_long_features_propose_what_comparing_all_of_them_does() -> None:
    random = torch.Generator().manual_seed(0)
    train = torch.randn(300, 3000, generator=random) + 2  # one common direction, as features have that are not centred
    test = train[:40] + 0.4 * torch.randn(40, 3000, generator=random)
    found = near._by_features(train, test)
    assert found.shape == (40, near.CANDIDATES)
    assert torch.equal(found[:, 0], torch.arange(40))
    similar = F.normalize(test) @ F.normalize(train).T
    assert (similar.gather(1, found).diff() <= 0).all()  # by all their numbers
    assert near._by_features(train[:3], test).shape == (40, 3)
