import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score, balanced_accuracy_score, r2_score, recall_score
from torch import Tensor, tensor

from diptych.evaluation.numbers.scores import per_picture, score, score_labels, score_quantities
from diptych.evaluation.numbers.statistics import paired_gain


def answers(predictions: Tensor, classes: int) -> Tensor:
    """Certain of its answers: logarithms of 0 and 1."""
    return F.one_hot(predictions, classes).float().log()


def test_pairing_matters_more_than_totals() -> None:
    truth = tensor([0, 1] * 100)
    wrong = 1 - truth
    # both are right on 120 of 200 by themselves; alike on all pictures, or on different ones
    first = truth.where(tensor([1] * 120 + [0] * 80) == 1, wrong)
    other = truth.where(tensor([0] * 80 + [1] * 120) == 1, wrong)
    same, another = (score(answers(given, 2), truth, ("a", "b")).correct[None] for given in (first, other))
    alike, apart = paired_gain(same, same), paired_gain(same, another)
    assert alike.points == apart.points == 0
    assert apart.high - apart.low > 5 * (alike.high - alike.low)


def test_scores_agree_with_scikit_learn() -> None:
    random = np.random.default_rng(2)
    truth, predictions = random.integers(0, 3, 90), random.integers(0, 3, 90)
    found = score(answers(tensor(predictions), 3), tensor(truth), ("x", "y", "z"), l2=0.5).to_dict()
    assert found["top1"] == pytest.approx((truth == predictions).mean())
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, predictions))
    assert list(found["per_class"].values()) == pytest.approx(recall_score(truth, predictions, average=None))
    assert found["l2"] == 0.5


def test_rows_of_the_confusion_matrix_are_the_truth() -> None:
    found = score(answers(tensor([1, 1, 0]), 3), tensor([0, 0, 0]), ("x", "y", "absent"))
    assert found.parts["confusion"] == [[1, 2, 0], [0, 0, 0], [0, 0, 0]]
    assert found.parts["per_class"] == {"x": pytest.approx(1 / 3), "y": None, "absent": None}
    assert found.metrics.balanced_accuracy == pytest.approx(1 / 3)  # of the classes that were tested
    assert found.predictions.tolist() == [1, 1, 0] and found.correct.tolist() == [False, False, True]


def test_labels_are_scored_one_by_one_and_together() -> None:
    random = torch.Generator().manual_seed(3)
    truth = torch.rand(60, 3, generator=random) < 0.4
    truth[:, 2] = False  # a label that nobody in the test has
    logits = torch.randn(60, 3, generator=random)
    found = score_labels(logits, truth, ("a", "b", "never"), l2=1.0)
    expected = [average_precision_score(truth[:, place], logits[:, place]) for place in (0, 1)]
    assert found.parts["per_label"] == {"a": pytest.approx(expected[0]), "b": pytest.approx(expected[1]), "never": None}
    assert found.value == pytest.approx(np.mean(expected)) and found.to_dict()["l2"] == 1.0
    assert per_picture([found]) is None
    half = torch.arange(60) < 30
    part = [average_precision_score(truth[half, place], logits[half, place]) for place in (0, 1)]
    assert found.within(half) == pytest.approx(np.mean(part))


def test_quantities_are_scored_by_r2() -> None:
    random = np.random.default_rng(4)
    truth = random.normal(size=(50, 2)) * (1, 100) + (0, 1e6)
    answers = truth + random.normal(size=(50, 2)) * (0.5, 20)
    found = score_quantities(tensor(answers), tensor(truth))
    assert found.value == pytest.approx(r2_score(truth, answers))
    pictures = per_picture([found, found])
    assert pictures is not None and pictures.shape == (2, 50)
    assert pictures.mean().item() == pytest.approx(found.value, abs=1e-5)
    few = torch.arange(50) % 5 == 0
    assert found.within(few) == pytest.approx(r2_score(truth[::5], answers[::5]))  # about these pictures' own mean
