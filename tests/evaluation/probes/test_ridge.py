import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from diptych.errors import DataError
from diptych.evaluation.features import Features
from diptych.evaluation.probes.holding_out import hold_out
from diptych.evaluation.probes.linear import L2_GRID
from diptych.evaluation.probes.ridge import RidgeProblem, fit_ridge


def quantities(rows: int, width: int, noise: float = 1.0, seed: int = 0) -> Features:
    """Two quantities of very different size, told by correlated, badly scaled features, one of which is constant."""
    random = np.random.default_rng(seed)
    rule = np.random.default_rng(7).normal(size=(width, 2))
    mixing = np.random.default_rng(8).normal(size=(width, width)) * np.geomspace(1, 0.01, width)
    hidden = random.normal(size=(rows, width))
    truth = (hidden @ rule + noise * random.normal(size=(rows, 2))) * (1, 1e4) + (5, 1e6)
    values = hidden @ mixing + 5
    values[:, -1] = 3
    return Features(torch.tensor(values, dtype=torch.float32), torch.tensor(truth))


def reference(data: Features, l2: float, unseen: Tensor) -> Tensor:
    scaler = StandardScaler().fit(data.values.double().numpy())
    x = scaler.transform(data.values.double().numpy())
    fitted = Ridge(alpha=l2 * len(x)).fit(x, data.labels.numpy())
    return torch.tensor(fitted.predict(scaler.transform(unseen.double().numpy())))


@pytest.mark.parametrize("l2", [1.0, 1e-2, 1e-4])
@pytest.mark.parametrize("shape", [(200, 12), (30, 60)], ids=["more pictures", "more features"])
def test_the_answers_are_scikit_learns(l2: float, shape: tuple[int, int]) -> None:
    data, unseen = quantities(*shape), quantities(20, shape[1], seed=1).values
    found = RidgeProblem(data.values, data.labels).answer(l2, unseen)
    torch.testing.assert_close(found, reference(data, l2, unseen), rtol=1e-6, atol=1e-6)


def test_the_whole_probe_is_a_plain_search() -> None:
    train, test = quantities(60, 30, noise=20), quantities(40, 30, noise=20, seed=1)
    found = fit_ridge(train, test.values, seed=0)
    kept, held = hold_out(train.labels, seed=0)
    part = Features(train.values[kept], train.labels[kept])
    scale = part.labels.std(dim=0, correction=0)
    errors = [
        ((reference(part, l2, train.values[held]) - train.labels[held]) / scale).square().mean().item()
        for l2 in L2_GRID
    ]
    assert found.l2 == L2_GRID[int(np.argmin(errors))] and not found.at_edge
    torch.testing.assert_close(found.answers, reference(train, found.l2, test.values), rtol=1e-6, atol=1e-6)


def test_a_quantity_that_did_not_vary_in_learning_is_answered_by_itself() -> None:
    data = quantities(30, 5)
    data.labels[:, 0] = 2.5
    found = fit_ridge(data, data.values[:4], seed=0)
    torch.testing.assert_close(found.answers[:, 0], torch.full((4,), 2.5, dtype=torch.float64))
    assert found.answers[:, 1].isfinite().all()


def test_a_single_picture_is_refused() -> None:
    with pytest.raises(DataError, match="a single labelled picture leaves none"):
        fit_ridge(quantities(1, 4), torch.zeros(1, 4), seed=0)
