import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from diptych.evaluation.features import Features
from diptych.evaluation.probes import knn
from diptych.evaluation.probes.knn import Neighbors, classify, nearest, vote


def features(rows: int, width: int = 6, classes: int = 4, seed: int = 0) -> Features:
    random = torch.Generator().manual_seed(seed)
    return Features(torch.randn(rows, width, generator=random), torch.randint(classes, (rows,), generator=random))


def slow_prediction(train: Features, query: torch.Tensor, classes: int, k: int, temperature: float) -> int:
    """Wu et al. 2018, one picture at a time, as the formula stands there."""
    cosines = [
        float(row @ query) / (math.sqrt(float(row @ row)) * math.sqrt(float(query @ query))) for row in train.values
    ]
    best = sorted(range(len(cosines)), key=lambda i: -cosines[i])[:k]
    votes = [0.0] * classes
    for i in best:
        votes[int(train.labels[i])] += math.exp(cosines[i] / temperature)
    return max(range(classes), key=lambda c: votes[c])


def test_it_agrees_with_the_papers_formula_in_a_slow_loop() -> None:
    train, test = features(60), features(25, seed=1)
    votes, _ = classify(train, test.values, classes=4)
    predictions = votes.argmax(dim=1)
    assert predictions.tolist() == [slow_prediction(train, q, 4, 20, 0.07) for q in test.values]


def test_it_agrees_with_scikit_learn() -> None:
    train, test = features(150), features(80, seed=1)
    reference = KNeighborsClassifier(20, weights=lambda distance: np.exp((1 - distance) / 0.07), metric="cosine")
    reference.fit(train.values.numpy(), train.labels.numpy())
    votes, _ = classify(train, test.values, classes=4)
    predictions = votes.argmax(dim=1)
    assert predictions.tolist() == reference.predict(test.values.numpy()).tolist()


@pytest.mark.parametrize(("temperature", "winner"), [(0.07, 0), (10.0, 1)])
def test_votes_by_hand(temperature: float, winner: int) -> None:
    # one vote of exp(0.9 / T) for class 0 against two of exp(0.6 / T) for class 1; equal at T = 0.3 / ln 2 = 0.43
    neighbors = Neighbors(torch.tensor([[0, 1, 2]]), torch.tensor([[0.9, 0.6, 0.6]]))
    votes = vote(neighbors, torch.tensor([0, 1, 1]), classes=2, temperature=temperature)
    assert votes.argmax(dim=1).tolist() == [winner]
    weights = torch.tensor([math.exp(0.9 / temperature), 2 * math.exp(0.6 / temperature)])
    torch.testing.assert_close(votes.exp()[0], weights / weights.sum(), rtol=1e-4, atol=1e-6)


def test_a_small_temperature_does_not_overflow() -> None:
    neighbors = Neighbors(torch.tensor([[0, 1, 2]]), torch.tensor([[1.0, 0.99, 0.99]]))
    votes = vote(neighbors, torch.tensor([1, 0, 0]), classes=2, temperature=1e-3)  # exp(1000) = inf
    assert votes.argmax(dim=1).tolist() == [1]


def test_neighbours_come_nearest_first_whatever_their_length() -> None:
    train = torch.tensor([[0.0, 5.0], [100.0, 0.0], [1.0, 1.0]])
    found = nearest(train, torch.tensor([[2.0, 0.0]]), k=3)
    assert found.indices.tolist() == [[1, 2, 0]]
    torch.testing.assert_close(found.similarities, torch.tensor([[1.0, math.sqrt(0.5), 0.0]]))


def test_k_is_cut_to_the_training_pictures() -> None:
    assert nearest(torch.randn(5, 3), torch.randn(2, 3)).indices.shape == (2, 5)


def test_parts_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = features(40).values, features(33, seed=1).values
    whole = nearest(train, test)
    monkeypatch.setattr(knn, "_SIMILARITIES_AT_ONCE", 7 * 40)  # seven rows at a time, the last part shorter
    parts = nearest(train, test)
    assert torch.equal(parts.indices, whole.indices)
    torch.testing.assert_close(parts.similarities, whole.similarities)


def test_means_are_those_of_scikit_learn() -> None:
    train, test = features(150), features(40, seed=1)
    truth = torch.randn(150, 2, dtype=torch.float64) * torch.tensor([1, 1e5]) + 1e6
    found = knn.mean(nearest(train.values, test.values), truth)
    model = KNeighborsRegressor(20, metric="cosine", weights=lambda distances: np.exp(-distances / 0.07))
    expected = model.fit(train.values, truth).predict(test.values)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-6, atol=0)


def test_means_of_labels_are_shares() -> None:
    neighbors = Neighbors(torch.tensor([[0, 2], [1, 2]]), torch.tensor([[0.5, 0.5 - 0.07 * math.log(3)], [1.0, 1.0]]))
    labels = torch.tensor([[True, False], [False, False], [False, True]])
    expected = torch.tensor([[0.75, 0.25], [0.0, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(knn.mean(neighbors, labels), expected, rtol=1e-5, atol=1e-6)
