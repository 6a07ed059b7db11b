import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, recall_score
from torch import tensor

from diptych.evaluation.intervals import paired_difference, wilson
from diptych.evaluation.scores import difference, score


def test_wilson_by_hand() -> None:
    # 0 of 10: from 0 to z² / (n + z²) = 3.8415 / 13.8415
    nothing = wilson(0, 10)
    assert nothing.low == pytest.approx(0)
    assert nothing.high == pytest.approx(0.27753, abs=1e-5)
    # the well-known example of Newcombe 1998 (Stat. Med. 17, 857), 81 of 263: 0.2553 to 0.3662
    found = wilson(81, 263)
    assert (found.low, found.high) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))


def test_wilson_is_symmetric() -> None:
    low, high = wilson(3, 17), wilson(14, 17)
    assert low.low == pytest.approx(1 - high.high)
    assert low.high == pytest.approx(1 - high.low)


def test_wilson_covers() -> None:
    random = np.random.default_rng(0)
    for p, n in ((0.1, 100), (0.5, 50), (0.9, 400)):
        draws = random.binomial(n, p, 4000)
        found = [wilson(int(k), n) for k in draws]
        assert 0.93 < np.mean([i.low <= p <= i.high for i in found]) < 0.97


def test_paired_difference_by_hand() -> None:
    # Bonett and Price: (gained + 1) / (n + 2) = 0.21, (lost + 1) / (n + 2) = 0.11, n + 2 = 100
    found = paired_difference(gained=20, lost=10, total=98, level=0.95)
    half = 1.959964 * ((0.21 + 0.11 - 0.1**2) / 100) ** 0.5
    assert (found.low, found.high) == (pytest.approx(0.1 - half, abs=1e-6), pytest.approx(0.1 + half, abs=1e-6))


@pytest.mark.parametrize("level", [0.95, 0.975])
def test_paired_difference_covers(level: float) -> None:
    random = np.random.default_rng(1)
    for gained, lost, n in ((0.2, 0.1, 200), (0.05, 0.05, 300), (0.3, 0.0, 100)):
        counts = random.multinomial(n, (gained, lost, 1 - gained - lost), 4000)
        found = [paired_difference(int(g), int(b), n, level) for g, b, _ in counts]
        coverage = np.mean([i.low <= gained - lost <= i.high for i in found])
        assert level - 0.015 < coverage < level + 0.02


def test_pairing_matters_more_than_totals() -> None:
    truth = tensor([0, 1] * 100)
    wrong = 1 - truth
    classes = ("a", "b")
    # both are right on 120 of 200 by themselves; alike on all pictures, or on different ones
    first = truth.where(tensor([1] * 120 + [0] * 80) == 1, wrong)
    other = truth.where(tensor([0] * 80 + [1] * 120) == 1, wrong)
    alike = difference(score(first, truth, classes), score(first, truth, classes), 0.95)
    apart = difference(score(first, truth, classes), score(other, truth, classes), 0.95)
    assert alike.points == apart.points == 0
    assert apart.high - apart.low > 5 * (alike.high - alike.low)


def test_a_difference_has_the_sign_of_first_minus_second() -> None:
    truth = tensor([0, 0, 0, 1, 1])
    good, bad = score(truth, truth, ("a", "b")), score(tensor([0, 0, 0, 0, 0]), truth, ("a", "b"))
    found = difference(good, bad, 0.975)
    assert found.points == pytest.approx(40)
    assert found.low < 40 < found.high
    assert found.to_dict() == {"points": found.points, "ci": [found.low, found.high], "level": 0.975}


def test_scores_agree_with_scikit_learn() -> None:
    random = np.random.default_rng(2)
    truth, predictions = random.integers(0, 3, 90), random.integers(0, 3, 90)
    found = score(tensor(predictions), tensor(truth), ("x", "y", "z"), l2=0.5).to_dict()
    assert found["top1"] == pytest.approx((truth == predictions).mean())
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, predictions))
    assert list(found["per_class"].values()) == pytest.approx(recall_score(truth, predictions, average=None))
    assert found["l2"] == 0.5


def test_rows_of_the_confusion_matrix_are_the_truth() -> None:
    found = score(tensor([1, 1, 0]), tensor([0, 0, 0]), ("x", "y", "absent"))
    assert found.confusion == [[1, 2, 0], [0, 0, 0], [0, 0, 0]]
    assert found.per_class == {"x": pytest.approx(1 / 3), "y": None, "absent": None}
    assert found.balanced_accuracy == pytest.approx(1 / 3)  # of the classes that were tested
