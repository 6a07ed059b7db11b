"""The per-pixel probe and its score, against enlarging everything, scikit-learn and counting by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, jaccard_score
from torch import Tensor

from diptych.errors import DataError
from diptych.evaluation.features import Features
from diptych.evaluation.numbers.statistics import Estimate, Gain, bootstrap_metric
from diptych.evaluation.probes.linear import fit_planes
from diptych.evaluation.segmentation.pixels import RARE, Drawn, draw_pixels, enlarged, features_at
from diptych.evaluation.segmentation.probe import fit_pixels, hold_out_pictures, predict
from diptych.evaluation.segmentation.score import PixelScore, possible, score, within

SIZE = 12


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def levels(pictures: Tensor) -> tuple[Tensor, ...]:
    """Maps of several strides, as a network has them."""
    return tuple(F.avg_pool2d(pictures, stride) for stride in (1, 3, 4))


def whole(maps: tuple[Tensor, ...]) -> Tensor:
    """All maps, enlarged and side by side: what the probe never has in memory."""
    sides = [F.interpolate(cells, size=(SIZE, SIZE), mode="bilinear", align_corners=False) for cells in maps]
    return torch.cat(sides, dim=1)


def drawn_of(*pictures: list[int]) -> Drawn:
    """Pixels with these classes, picture by picture."""
    rows = [row for row, labels in enumerate(pictures) for _ in labels]
    labels = [label for labels in pictures for label in labels]
    return Drawn(rows=torch.tensor(rows), places=torch.zeros(len(rows)).long(), labels=torch.tensor(labels))


def test_features_at_a_pixel_are_those_of_enlarged_maps() -> None:
    images, masks = random(5, 2, SIZE, SIZE), torch.zeros(5, SIZE, SIZE, dtype=torch.uint8)
    drawn = draw_pixels(masks, most=5 * 30, seed=1)
    every = whole(levels(images)).flatten(2).transpose(1, 2)  # (N, pixels, D)
    for at_once in (1, 2, 5):
        found = features_at(levels, images, drawn, at_once)
        torch.testing.assert_close(found, every[drawn.rows, drawn.places])


def test_logits_of_enlarged_maps_are_enlarged_logits() -> None:
    maps, weights, bias = levels(random(2, 3, SIZE, SIZE)), random(9, 4, seed=1), random(4, seed=2)
    expected = torch.einsum("bdhw,dk->bkhw", whole(maps), weights) + bias[:, None, None]
    torch.testing.assert_close(enlarged(maps, weights, bias, SIZE), expected)


def test_pixels_are_drawn_evenly_and_of_every_class() -> None:
    masks = torch.zeros(4, SIZE, SIZE, dtype=torch.uint8)
    masks[1, :6] = 255
    masks[2, 3, 5] = 2  # one pixel in 144
    masks[3, :, 6:] = 1
    drawn = draw_pixels(masks, most=4 * 20, seed=0)
    assert drawn.rows.bincount().tolist() in ([20, 20, 21, 20], [20, 20, 20, 20])
    assert torch.equal(masks.flatten(1)[drawn.rows, drawn.places].long(), drawn.labels)
    assert drawn.labels.unique().tolist() == [0, 1, 2]
    assert drawn.places[drawn.rows == 1].min() >= 6 * SIZE
    assert len(set(zip(drawn.rows.tolist(), drawn.places.tolist(), strict=True))) == len(drawn.rows)
    halves = drawn.labels[drawn.rows == 3].float().mean()
    assert 0.2 < halves < 0.8
    again = draw_pixels(masks, most=4 * 20, seed=0)
    assert torch.equal(again.places, drawn.places)
    assert not torch.equal(draw_pixels(masks, most=4 * 20, seed=1).places[:20], drawn.places[:20])
    assert len(draw_pixels(masks, most=10**6, seed=0).rows) == 4 * 144 - 72


def test_a_rare_class_is_given_pixels_until_it_has_enough() -> None:
    masks = torch.zeros(3 * RARE, 4, 4, dtype=torch.uint8)
    masks[:, 3, 3] = 1
    drawn = draw_pixels(masks, most=len(masks), seed=0)
    assert drawn.rows.bincount().min() == 1
    counts = drawn.labels.bincount()
    assert RARE <= counts[1] <= RARE + 3 * RARE // 16 * 2  # and some more by chance
    assert len(drawn.labels) <= len(masks) + RARE


def test_more_pictures_than_pixels_give_one_each_as_far_as_they_go() -> None:
    masks = torch.zeros(40, 4, 4, dtype=torch.uint8)
    masks[20:] = 1
    images = random(40, 2, 4, 4)
    drawn = draw_pixels(masks[:, :4, :4], most=10, seed=0)
    assert 10 <= len(drawn.rows) <= 10 + 2 * RARE and drawn.labels.unique().tolist() == [0, 1]
    assert 150 <= len(draw_pixels(masks[:1].repeat(200, 1, 1), most=150, seed=0).rows) <= 150 + RARE
    kept = Drawn(rows=drawn.rows[:3], places=drawn.places[:3], labels=drawn.labels[:3])  # and some give none
    found = features_at(lambda pictures: (pictures,), images, kept, 7)
    torch.testing.assert_close(found, images.flatten(2)[kept.rows, :, kept.places])
    assert hold_out_pictures(drawn, seed=0).any()


def test_groups_are_held_out_whole() -> None:
    drawn, groups = drawn_of(*[[0, 1]] * 10), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 3, 4])
    for seed in range(10):
        held = hold_out_pictures(drawn, seed, groups)
        assert held.double().mean().item() in (0.2, 0.3)
        assert not set(groups[drawn.rows[held]].tolist()) & set(groups[drawn.rows[~held]].tolist())
    with pytest.raises(DataError, match="every training folder shows a class that no other does"):
        fit_pixels(random(4, 2), drawn_of([0, 1], [0, 2]), classes=3, seed=0, groups=torch.tensor([0, 1]))


def test_whole_pictures_are_held_out_and_no_class_is_lost() -> None:
    drawn = drawn_of(*[[0, 1]] * 8, [0, 2], [1, 3])
    for seed in range(20):
        held = hold_out_pictures(drawn, seed)
        rows = set(drawn.rows[held].tolist())
        assert len(rows) == 2 and not rows & {8, 9}
        assert int(held.sum()) == sum(int((drawn.rows == row).sum()) for row in rows)
    pairwise = drawn_of(*[[0, 1 + place // 2] for place in range(8)])
    for seed in range(60):  # two are held out, never both that show a class
        held = hold_out_pictures(pairwise, seed)
        assert held.sum() == 4 and pairwise.labels[~held].unique().tolist() == [0, 1, 2, 3, 4]
    assert not hold_out_pictures(drawn_of([0, 1], [0, 2]), seed=0).any()
    assert hold_out_pictures(drawn_of([0, 1], [0, 1]), seed=0).sum() == 2


def test_pictures_none_of_which_can_be_held_out_are_refused() -> None:
    with pytest.raises(DataError, match="every training picture shows a class that no other does"):
        fit_pixels(random(4, 2), drawn_of([0, 1], [0, 2]), classes=3, seed=0)


def test_the_probe_is_multinomial_logistic_regression_at_the_chosen_strength() -> None:
    images = random(10, 2, SIZE, SIZE)
    masks = (images[:, 0] + 0.5 * random(10, SIZE, SIZE, seed=3) > 0.3).to(torch.uint8)
    masks[images[:, 1] + 0.5 * random(10, SIZE, SIZE, seed=4) > 1] = 2
    drawn = draw_pixels(masks, most=10 * 40, seed=0)
    values = features_at(levels, images, drawn, 4)
    planes = fit_pixels(values, drawn, 3, seed=0)
    assert planes.converged
    scaled = planes.scaler.transform(values.numpy())
    reference = LogisticRegression(C=1 / (planes.l2 * len(values)), tol=1e-8, max_iter=5000)
    reference.fit(scaled, drawn.labels.numpy())
    np.testing.assert_allclose(planes.logits(values).softmax(dim=1).numpy(), reference.predict_proba(scaled), atol=2e-3)
    every = whole(levels(images)).permute(0, 2, 3, 1).flatten(0, 2)
    expected = planes.logits(every).argmax(dim=1).view(10, SIZE, SIZE)
    assert (predict(planes, levels, images, at_once=3) == expected).float().mean() > 0.999  # rounding decides ties


def test_the_strength_is_chosen_on_pictures_not_on_pixels() -> None:
    """Where features tell the picture and nothing of the class, pixels held out would be told; pictures are not."""
    random_ = np.random.default_rng(0)
    of_picture = random_.integers(0, 2, 30)
    rows = np.repeat(np.arange(30), 20)
    values = torch.from_numpy(random_.normal(size=(30, 60))[rows] + 0.01 * random_.normal(size=(600, 60))).float()
    labels = torch.from_numpy(of_picture[rows])
    drawn = Drawn(rows=torch.from_numpy(rows), places=torch.zeros(600).long(), labels=labels)
    by_picture = fit_pixels(values, drawn, 2, seed=0).l2
    by_pixel = fit_planes(Features(values, labels), 2, seed=0).l2
    assert by_picture >= 100 * by_pixel


def test_scores_are_those_of_scikit_learn() -> None:
    random_ = np.random.default_rng(1)
    truth = random_.integers(0, 4, (6, SIZE, SIZE)).astype(np.uint8)
    answers = np.where(random_.random(truth.shape) < 0.6, truth, random_.integers(0, 4, truth.shape)).astype(np.uint8)
    truth[random_.random(truth.shape) < 0.2] = 255
    found = score(torch.from_numpy(answers), torch.from_numpy(truth), 4)
    known = truth != 255
    expected = jaccard_score(truth[known], answers[known], average=None)
    np.testing.assert_allclose(found.per_class, expected)
    assert found.pixel_accuracy == pytest.approx(accuracy_score(truth[known], answers[known]))
    assert found.resampled().values[0] == pytest.approx(expected.mean())


def test_a_class_that_no_test_mask_shows_has_no_iou() -> None:
    truth = torch.tensor([[[0, 0, 0, 1]], [[0, 0, 1, 1]]], dtype=torch.uint8)
    answers = torch.tensor([[[0, 0, 2, 1]], [[0, 0, 1, 1]]], dtype=torch.uint8)
    found = score(answers, truth, 3)
    assert found.per_class == [0.8, 1.0, None]
    assert found.resampled().values[0] == pytest.approx(0.9)


def test_the_interval_is_that_of_drawing_pictures_by_hand() -> None:
    random_ = np.random.default_rng(2)
    right, extra = (torch.from_numpy(random_.integers(1, 90, (25, 2))).double() for _ in range(2))
    found = PixelScore(right=right, true=right + extra, given=right + extra.flip(1))
    means = []
    for _ in range(4000):
        rows = random_.integers(0, 25, 25)
        r, t, g = (part[rows].sum(dim=0) for part in (found.right, found.true, found.given))
        means.append(float((r / (t + g - r)).mean()))
    estimate = bootstrap_metric(found.resampled())
    twice = PixelScore(right=right.repeat(2, 1), true=found.true.repeat(2, 1), given=found.given.repeat(2, 1))
    grouped = bootstrap_metric(twice.resampled(torch.arange(25).repeat(2)))
    assert (grouped.low, grouped.high) == pytest.approx((estimate.low, estimate.high))
    low, high = np.percentile(means, (2.5, 97.5))
    assert estimate.low == pytest.approx(low, abs=0.02) and estimate.high == pytest.approx(high, abs=0.02)


def test_intervals_end_where_an_iou_ends() -> None:
    """Few pictures have wide tails."""
    cut = within(Estimate(value=0.5, low=-0.2, high=1.3, level=0.95))
    assert (cut.value, cut.low, cut.high) == (0.5, 0, 1)
    gain = possible(Gain(points=10.0, low=-130.0, high=120.0, level=0.95, p_value=0.8))
    assert (gain.points, gain.low, gain.high) == (10, -100, 100)
    inside = Gain(points=10.0, low=-30.0, high=50.0, level=0.95, p_value=0.8)
    assert possible(inside) == inside
