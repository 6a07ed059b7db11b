import math

import pytest
import torch
import torch.nn.functional as F

from diptych.errors import DataError
from diptych.evaluation.features import Features
from diptych.evaluation.probes import keras_protocol
from diptych.evaluation.probes.keras_protocol import fit_keras, learning_rate
from diptych.seeding import generator


def data(rows: int, width: int = 8, classes: int = 3, seed: int = 0) -> Features:
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (rows,), generator=random)
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(9))
    return Features(2 * centres[labels] + torch.randn(rows, width, generator=random), labels)


def test_the_rate_falls_along_a_cosine_to_zero_and_stays_there() -> None:
    assert learning_rate(0, 10) == 0.03
    assert learning_rate(5, 10) == pytest.approx(0.015)
    assert learning_rate(10, 10) == learning_rate(12, 10) == pytest.approx(0)


def test_it_trains_as_autograd_with_keras_momentum_does() -> None:
    train, test = data(300), data(50, seed=1)
    flipped = train.values + 0.1
    found = fit_keras(train, flipped, test.values, 3, seed=4)

    random = generator(4)  # 300 pictures: batches of 128, 128 and 44; 2 whole ones an epoch count for the decay
    bound = math.sqrt(6 / (8 + 3))
    weight = ((torch.rand(8, 3, generator=random) * 2 - 1) * bound).requires_grad_()
    bias = torch.zeros(3, requires_grad=True)
    momentum = [torch.zeros(8, 3), torch.zeros(3)]
    step, losses = 0, []
    for _ in range(5):
        total = 0.0
        turned = torch.rand(300, generator=random) < 0.5
        order = torch.randperm(300, generator=random)
        for rows in (order[:128], order[128:256], order[256:]):
            x = torch.stack([flipped[i] if turned[i] else train.values[i] for i in rows.tolist()])
            loss = F.cross_entropy(x @ weight + bias, train.labels[rows])
            total += loss.item() * len(rows)
            gradients = torch.autograd.grad(loss, (weight, bias))
            lr = 0.015 * (1 + math.cos(math.pi * min(step / 10, 1)))
            with torch.no_grad():
                for place, (parameter, gradient) in enumerate(zip((weight, bias), gradients, strict=True)):
                    momentum[place] = 0.9 * momentum[place] - lr * gradient
                    parameter += momentum[place]
            step += 1
        losses.append(total / 300)
    assert torch.equal(found.logits.argmax(dim=1), (test.values @ weight + bias).argmax(dim=1))
    assert found.epoch_losses == pytest.approx(losses, abs=1e-6)


def test_it_learns_and_depends_on_the_seed_alone() -> None:
    train, test = data(600), data(200, seed=1)
    first = fit_keras(train, train.values, test.values, 3, seed=0)
    again = fit_keras(train, train.values, test.values, 3, seed=0)
    other = fit_keras(train, train.values, test.values, 3, seed=1)
    assert (first.logits.argmax(dim=1) == test.labels).float().mean() > 0.9
    assert first.epoch_losses == again.epoch_losses
    assert torch.equal(first.logits, again.logits)
    assert first.epoch_losses != other.epoch_losses


def test_half_the_pictures_are_flipped_anew_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    train = Features(torch.zeros(1280, 1), torch.zeros(1280, dtype=torch.int64))
    seen = []
    real = keras_protocol._step

    def spy(parameters, velocities, x, labels, lr):  # type: ignore[no-untyped-def]
        seen.append(x.mean().item())
        return real(parameters, velocities, x, labels, lr)

    monkeypatch.setattr(keras_protocol, "_step", spy)
    fit_keras(train, torch.ones(1280, 1), torch.zeros(1, 1), 2, seed=0)
    assert len(seen) == 50
    epochs = torch.tensor(seen).reshape(5, 10).mean(dim=1)
    assert ((epochs - 0.5).abs() < 0.06).all()
    assert len(set(epochs.tolist())) == 5


def test_less_than_a_batch_is_refused() -> None:
    with pytest.raises(DataError, match="at least 128 training pictures and here are 127"):
        fit_keras(data(127), data(127).values, data(5).values, 3, seed=0)
