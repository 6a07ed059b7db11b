import json

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    r2_score,
    roc_auc_score,
    top_k_accuracy_score,
)
from torch import Tensor

from diptych.evaluation.numbers.metrics import (
    calibration_error,
    class_metrics,
    macro_average_precision,
    multilabel_metrics,
    regression_metrics,
)

NAMES = ("a", "b", "c", "d", "e", "f", "g")


def predictions(total: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits that know something of the truth, and the truth."""
    random = np.random.default_rng(seed)
    truth = random.integers(classes, size=total)
    logits = random.normal(size=(total, classes)) + 1.5 * (truth[:, None] == np.arange(classes))
    return torch.tensor(logits, dtype=torch.float32), torch.tensor(truth)


def test_classes_agree_with_scikit_learn() -> None:
    logits, truth = predictions(300, 7)
    found = class_metrics(logits, truth, NAMES)
    answers = logits.argmax(dim=1)
    assert found.top1 == pytest.approx((answers == truth).double().mean().item())
    assert found.top5 == pytest.approx(top_k_accuracy_score(truth, logits, k=5))
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(truth, answers))
    assert found.macro_f1 == pytest.approx(f1_score(truth, answers, average="macro"))
    assert found.headline == ("top1", found.top1)
    assert torch.equal(found.per_picture, (answers == truth).float())
    assert found.auroc is None and found.average_precision is None and found.positive is None


def test_classes_without_test_pictures_play_no_part() -> None:
    logits, truth = predictions(200, 7)
    kept = truth < 3
    found = class_metrics(logits[kept], truth[kept], NAMES)
    answers = logits[kept].argmax(dim=1)
    assert answers.max() > 2  # absent classes are answered
    recalls = [(answers[truth[kept] == c] == c).double().mean().item() for c in range(3)]
    assert found.balanced_accuracy == pytest.approx(np.mean(recalls))
    assert found.macro_f1 == pytest.approx(f1_score(truth[kept], answers, labels=[0, 1, 2], average="macro"))


def test_five_classes_have_no_top_five_and_ties_go_to_the_first_class() -> None:
    logits, truth = predictions(50, 5)
    assert class_metrics(logits, truth, NAMES[:5]).top5 is None
    found = class_metrics(torch.zeros(7, 7), torch.arange(7), NAMES)
    assert found.top1 == pytest.approx(1 / 7)
    assert found.top5 == pytest.approx(5 / 7)


def test_two_classes_have_a_positive_one() -> None:
    logits, truth = predictions(120, 2)
    found = class_metrics(logits, truth, ("sick", "well"), positive=0)
    score = logits[:, 0] - logits[:, 1]
    assert found.positive == "sick"
    assert found.auroc == pytest.approx(roc_auc_score(truth == 0, score))
    assert found.average_precision == pytest.approx(average_precision_score(truth == 0, score))
    # 60 and 80 are different although both probabilities are 1 in float64; votes may give a class nothing at all
    sure = torch.tensor([[80.0, 0.0], [60.0, 0.0], [0.0, -torch.inf], [-torch.inf, 0.0]])
    ranked = class_metrics(sure, torch.tensor([0, 1, 0, 1]), ("sick", "well"), positive=0)
    assert ranked.auroc == 1
    alone = class_metrics(logits[truth == 0], truth[truth == 0], ("sick", "well"), positive=0)
    assert alone.auroc is None and alone.average_precision is None


def slow_ece(confidence: Tensor, correct: Tensor) -> float:
    """The formula, bin by bin, for confidences that all differ."""
    order = confidence.argsort().tolist()
    places = [[] for _ in range(15)]
    for rank, i in enumerate(order):
        places[rank * 15 // len(order)].append(i)
    gaps = [abs(correct[b].double().mean() - confidence[b].double().mean()) * len(b) for b in places]
    return float(sum(gaps) / len(order))


def test_calibration_by_hand_and_bin_by_bin() -> None:
    logits, truth = predictions(450, 7, seed=3)
    confidence, answers = logits.double().softmax(dim=1).max(dim=1)
    correct = answers == truth
    assert class_metrics(logits, truth, NAMES).ece == pytest.approx(slow_ece(confidence, correct), abs=5e-3)
    # 0.9 sure and right 6 times of 10, 0.6 sure and right 6 times of 10: (0.3 + 0) / 2, in whatever order they come
    correct = torch.tensor(([True] * 6 + [False] * 4) * 2)
    confidence = torch.tensor([0.9] * 10 + [0.6] * 10)
    assert calibration_error(confidence, correct) == pytest.approx(0.15)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    assert calibration_error(confidence[order], correct[order]) == pytest.approx(0.15)


def several_labels(total: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = np.random.default_rng(seed)
    truth = random.random((total, 4)) < (0.5, 0.2, 0.1, 0.3)
    logits = np.round(random.normal(size=(total, 4)) + 1.5 * truth - 0.5, 1)  # rounded: scores tie
    return torch.tensor(logits, dtype=torch.float32), torch.tensor(truth)


def test_labels_agree_with_scikit_learn() -> None:
    logits, truth = several_labels(250)
    found = multilabel_metrics(logits, truth)
    assert found.macro_average_precision == pytest.approx(average_precision_score(truth, logits, average="macro"))
    assert found.micro_average_precision == pytest.approx(average_precision_score(truth, logits, average="micro"))
    assert found.macro_auroc == pytest.approx(roc_auc_score(truth, logits, average="macro"))
    assert found.micro_auroc == pytest.approx(roc_auc_score(truth, logits, average="micro"))
    assert found.macro_f1 == pytest.approx(f1_score(truth, logits >= 0, average="macro"))
    assert found.exact_match == pytest.approx(((logits >= 0) == truth).all(dim=1).double().mean().item())
    assert found.headline == ("macro_average_precision", found.macro_average_precision)
    assert found.labels == 4 and found.per_picture is None


def test_labels_that_do_not_vary_are_left_out() -> None:
    logits, truth = several_labels(100)
    fixed = truth.clone()
    fixed[:, 0], fixed[:, 2] = True, False
    found, kept = multilabel_metrics(logits, fixed), multilabel_metrics(logits[:, [1, 3]], truth[:, [1, 3]])
    assert found.labels == 2
    assert found.macro_auroc == kept.macro_auroc and found.micro_auroc == kept.micro_auroc
    assert found.macro_f1 == kept.macro_f1
    assert found.exact_match < kept.exact_match
    nothing = multilabel_metrics(logits, torch.zeros_like(truth))
    assert nothing.headline == ("macro_average_precision", None)
    assert nothing.macro_f1 is None and nothing.micro_auroc is None
    json.dumps(nothing.to_dict(), allow_nan=False)


def test_resampled_average_precision_is_that_of_the_pictures_drawn() -> None:
    logits, truth = several_labels(60)
    random = np.random.default_rng(5)
    drawn = [random.integers(60, size=60) for _ in range(20)]
    weights = torch.tensor(np.array([np.bincount(rows, minlength=60) for rows in drawn]), dtype=torch.float64)
    found = macro_average_precision(logits, truth, weights)
    for rows, value in zip(drawn, found.tolist(), strict=True):
        assert value == pytest.approx(multilabel_metrics(logits[rows], truth[rows]).macro_average_precision)
    everything = macro_average_precision(logits, truth, torch.ones(1, 60, dtype=torch.float64))
    assert everything.item() == pytest.approx(multilabel_metrics(logits, truth).macro_average_precision)
    missing = weights.new_zeros(1, 60)
    missing[0, (~truth.any(dim=1)).nonzero()[0]] = 60
    assert macro_average_precision(logits, truth, missing).isnan().all()


def quantities(total: int) -> tuple[Tensor, Tensor]:
    random = np.random.default_rng(6)
    truth = random.normal(size=(total, 2)) * (1, 50)
    return torch.tensor(truth + random.normal(size=(total, 2)) * (0.5, 40)), torch.tensor(truth)


def test_quantities_agree_with_their_formulas() -> None:
    found, truth = quantities(80)
    measured = regression_metrics(found.float(), truth.float())
    errors = (found - truth).numpy()
    assert measured.r2_per_target == pytest.approx(r2_score(truth, found, multioutput="raw_values"), rel=1e-4)
    assert measured.mae_per_target == pytest.approx(np.abs(errors).mean(axis=0), rel=1e-4)
    assert measured.rmse_per_target == pytest.approx((errors**2).mean(axis=0) ** 0.5, rel=1e-4)
    ranks = [np.corrcoef(rankdata(found[:, k]), rankdata(truth[:, k]))[0, 1] for k in range(2)]
    assert measured.spearman_per_target == pytest.approx(ranks)
    assert measured.spearman == pytest.approx(np.mean(ranks))
    assert measured.headline == ("r2", pytest.approx(np.mean(measured.r2_per_target)))
    assert measured.per_picture is not None and measured.per_picture.shape == (80,)
    assert measured.per_picture.mean().item() == pytest.approx(measured.r2, rel=1e-4)


def test_what_a_picture_adds_to_r2_is_its_slope_by_the_picture_s_weight() -> None:
    # the variance of the truth changes with the pictures drawn, too: errors over a fixed one promise too much
    found, truth = quantities(40)
    measured = regression_metrics(found, truth)
    assert measured.per_picture is not None and measured.r2 is not None
    for picture in range(0, 40, 7):
        ends = []
        for step in (1e-4, -1e-4):
            weights = np.ones(40)
            weights[picture] += step
            ends.append(r2_score(truth, found, sample_weight=weights))
        slope = 40 * (ends[0] - ends[1]) / 2e-4
        assert measured.per_picture[picture].item() - measured.r2 == pytest.approx(slope, abs=1e-3)


def test_the_mean_scores_nothing_and_the_truth_everything() -> None:
    _, truth = quantities(50)
    mean = regression_metrics(truth.mean(dim=0).expand(50, 2), truth)
    assert mean.r2 == pytest.approx(0, abs=1e-9)
    assert mean.spearman is None  # one answer has no order
    perfect = regression_metrics(truth, truth)
    assert (perfect.r2, perfect.mae, perfect.rmse, perfect.spearman) == (1, 0, 0, pytest.approx(1))


def test_a_target_that_does_not_vary_has_errors_alone() -> None:
    found, truth = quantities(50)
    truth[:, 1] = 3
    measured = regression_metrics(found, truth)
    assert measured.r2_per_target == [measured.r2, None]
    assert measured.spearman_per_target == [measured.spearman, None]
    assert measured.per_picture is not None
    assert measured.per_picture.mean().item() == pytest.approx(measured.r2, rel=1e-4)
    truth[:, 0] = 1
    constant = regression_metrics(found, truth)
    assert constant.headline == ("r2", None) and constant.per_picture is None
    json.dumps(constant.to_dict(), allow_nan=False)


def test_what_is_saved_is_json() -> None:
    logits, truth = predictions(40, 2)
    saved = json.loads(json.dumps(class_metrics(logits, truth, ("x", "y"), positive=1).to_dict(), allow_nan=False))
    assert saved["positive"] == "y" and saved["top5"] is None
    assert "per_picture" not in saved
