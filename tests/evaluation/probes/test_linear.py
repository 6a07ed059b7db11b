import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from diptych.errors import DataError
from diptych.evaluation.features import Features
from diptych.evaluation.probes.holding_out import hold_out
from diptych.evaluation.probes.linear import L2_GRID, Problem, fit_linear


def clusters(rows: int, width: int, classes: int = 3, spread: float = 2.0, seed: int = 0) -> Features:
    """Overlapping classes in correlated, badly scaled features."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(classes, width))
    mixing = np.random.default_rng(8).normal(size=(width, width)) * np.geomspace(1, 0.01, width)
    labels = random.integers(0, classes, rows)
    values = (centres[labels] + spread * random.normal(size=(rows, width))) @ mixing + 5
    return Features(torch.tensor(values, dtype=torch.float32), torch.tensor(labels))


def standardised(values: Tensor) -> Tensor:
    return torch.tensor(StandardScaler().fit_transform(values.numpy()))


@pytest.mark.parametrize("l2", [1.0, 1e-2, 1e-4])
@pytest.mark.parametrize("shape", [(300, 12), (40, 90)], ids=["more pictures", "more features"])
def test_the_minimum_is_scikit_learns(l2: float, shape: tuple[int, int]) -> None:
    data = clusters(*shape)
    x = standardised(data.values)
    found = Problem(x, data.labels, 3).solve(l2)
    reference = LogisticRegression(C=1 / (l2 * len(x)), tol=1e-9, max_iter=20000).fit(x.double().numpy(), data.labels)
    assert found.converged
    expected = torch.tensor(reference.predict_proba(x.double().numpy()), dtype=torch.float32)
    torch.testing.assert_close((x @ found.weights + found.bias).softmax(dim=1), expected, atol=3e-3, rtol=0)


def test_a_path_and_a_fresh_start_end_alike() -> None:
    data = clusters(200, 10)
    x = standardised(data.values)
    path = Problem(x, data.labels, 3)
    for l2 in (10.0, 1.0, 0.1):
        last = path.solve(l2)
    torch.testing.assert_close(last.weights, Problem(x, data.labels, 3).solve(0.1).weights, atol=2e-3, rtol=0)


def test_too_few_iterations_are_not_called_converged() -> None:
    data = clusters(200, 10)
    assert not Problem(standardised(data.values), data.labels, 3).solve(1e-3, max_iterations=2).converged


def test_the_whole_probe_agrees_with_a_plain_search_by_scikit_learn() -> None:
    train, test = clusters(400, 20), clusters(300, 20, seed=1)
    found = fit_linear(train, test.values, 3, seed=0)
    kept, held = hold_out(train.labels, seed=0)

    def fitted(rows: Tensor, l2: float, unseen: Tensor) -> Tensor:
        scaler = StandardScaler().fit(train.values[rows].double().numpy())
        model = LogisticRegression(C=1 / (l2 * len(rows)), max_iter=20000, tol=1e-7)
        model.fit(scaler.transform(train.values[rows].double().numpy()), train.labels[rows])
        return torch.tensor(model.predict_log_proba(scaler.transform(unseen.double().numpy())))

    grid = [l2 for l2 in L2_GRID if l2 > 1e-4]
    losses = [F.nll_loss(fitted(kept, l2, train.values[held]), train.labels[held]).item() for l2 in grid]
    best = grid[int(np.argmin(losses))]
    assert found.l2 == best
    assert found.converged and not found.at_edge and found.iterations > 0
    expected = fitted(torch.arange(400), best, test.values).argmax(dim=1)
    assert (found.logits.argmax(dim=1) == expected).float().mean() > 0.99  # ties at the border may fall either way
    assert 0.5 < (found.logits.argmax(dim=1) == test.labels).float().mean() < 1


def test_constant_and_huge_features_do_no_harm() -> None:
    train, test = clusters(200, 8), clusters(100, 8, seed=1)
    plain = fit_linear(train, test.values, 3, seed=0).logits.argmax(dim=1)

    def padded(values: Tensor) -> Tensor:
        return torch.cat([values[:, :4] * 1000, values[:, 4:], torch.full((len(values), 2), 0.3)], dim=1)

    other = fit_linear(Features(padded(train.values), train.labels), padded(test.values), 3, seed=0)
    assert (plain == other.logits.argmax(dim=1)).float().mean() > 0.98


def test_noise_is_penalised_to_the_edge_and_that_is_said() -> None:
    random = torch.Generator().manual_seed(0)
    noise = Features(torch.randn(60, 50, generator=random), torch.arange(60) % 2)
    found = fit_linear(noise, torch.randn(5, 50, generator=random), 2, seed=0)
    assert (found.l2, found.at_edge) == (L2_GRID[0], True)


def test_separable_classes_converge_at_every_strength() -> None:
    data = clusters(120, 6, spread=0.01)
    found = fit_linear(data, data.values, 3, seed=0)
    assert found.converged
    assert torch.equal(found.logits.argmax(dim=1), data.labels)


def test_the_strength_is_chosen_without_the_test_pictures() -> None:
    train = clusters(150, 10)
    chosen = {fit_linear(train, clusters(20, 10, seed=seed).values * 10**seed, 3, seed=0).l2 for seed in range(3)}
    assert len(chosen) == 1


def test_single_pictures_of_each_class_cannot_tune_a_probe() -> None:
    with pytest.raises(DataError, match="two or more of each"):
        fit_linear(Features(torch.randn(3, 4), torch.arange(3)), torch.randn(1, 4), 3, seed=0)


def labelled(rows: int, width: int, seed: int = 0) -> Features:
    """Three labels of different rarity, each told by a direction of its own."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(rows, width))
    rule = np.random.default_rng(9).normal(size=(width, 3))
    labels = values @ rule + random.normal(size=(rows, 3)) * 2 > np.array([0, 3, 6]) * width**0.5 / 4
    return Features(torch.tensor(values, dtype=torch.float32), torch.tensor(labels))


@pytest.mark.parametrize("l2", [1.0, 1e-2])
def test_several_labels_are_as_many_regressions(l2: float) -> None:
    data = labelled(300, 12)
    x = standardised(data.values)
    found = Problem(x, data.labels, 3).solve(l2)
    assert found.converged
    for place in range(3):
        y = data.labels[:, place].numpy()
        reference = LogisticRegression(C=1 / (l2 * len(x)), tol=1e-9, max_iter=20000).fit(x.double().numpy(), y)
        expected = torch.tensor(reference.predict_proba(x.double().numpy())[:, 1], dtype=torch.float32)
        got = (x @ found.weights + found.bias)[:, place].sigmoid()
        torch.testing.assert_close(got, expected, atol=3e-3, rtol=0)


def test_several_labels_share_the_strength_that_is_best_for_all() -> None:
    train, test = labelled(200, 15), labelled(50, 15, seed=1)
    found = fit_linear(train, test.values, 3, seed=0)
    kept, held = hold_out(train.labels, seed=0)

    def fitted(rows: Tensor, l2: float, unseen: Tensor) -> Tensor:
        scaler = StandardScaler().fit(train.values[rows].double().numpy())
        x, z = (torch.tensor(scaler.transform(part.double().numpy())).float() for part in (train.values[rows], unseen))
        solution = Problem(x, train.labels[rows], 3).solve(l2)
        return z @ solution.weights + solution.bias

    losses = [
        F.binary_cross_entropy_with_logits(fitted(kept, l2, train.values[held]), train.labels[held].float()).item()
        for l2 in L2_GRID[:10]
    ]
    assert found.l2 == L2_GRID[int(np.argmin(losses))]
    torch.testing.assert_close(found.logits, fitted(torch.arange(200), found.l2, test.values), atol=5e-3, rtol=0)


def test_more_weights_than_fit_into_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diptych.evaluation.probes.linear.free_memory", lambda: 10**9)
    data = Features(torch.randn(1000, 512), torch.arange(1000) % 20000)
    with pytest.raises(
        DataError, match=r"of 20,000 outputs on 512 features has 10,240,000 weights, and to fit them takes"
    ):
        fit_linear(data, data.values, 20000, seed=0)
