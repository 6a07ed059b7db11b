"""The linear probe against scikit-learn's and the usual SGD probe: seconds and accuracy, on the same features.

    python benchmarks/linear_probe.py                          # 50,000 × 512 made features, 10 classes
    python benchmarks/linear_probe.py features.safetensors     # train, train_labels, test, test_labels

All go through the same twelve L2 strengths; ours and scikit-learn's from strong to weak, each beginning where the last
one ended. The SGD probe trains 100 epochs for each (batches of 256, momentum 0.9, cosine, features in memory).
"""

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from diptych.evaluation.probes.linear import L2_GRID, Problem

STRENGTHS = L2_GRID[4:16]
"""Twelve, in half decades from 1 down."""
EPOCHS, BATCH, RATE = 100, 256, 0.1


def made(train: int, test: int, width: int, classes: int) -> dict[str, Tensor]:
    """Features with a spectrum as networks have it (variances i^-1, mixed), and classes that overlap."""
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (train + test,), generator=random)
    scales = torch.arange(1, width + 1).float().rsqrt()
    means = torch.randn(classes, width, generator=random) * scales * 0.06
    values = means[labels] + torch.randn(train + test, width, generator=random) * scales
    values = values @ torch.linalg.qr(torch.randn(width, width, generator=random)).Q
    return {
        "train": values[:train].relu(),
        "train_labels": labels[:train],
        "test": values[train:].relu(),
        "test_labels": labels[train:],
    }


def ours(x: Tensor, y: Tensor, test: Tensor, classes: int) -> list[Tensor]:
    """Return the logits of the test pictures at every strength."""
    problem = Problem(x, y, classes)
    solutions = [problem.solve(l2) for l2 in STRENGTHS]
    print(f"ours: iterations {[s.iterations for s in solutions]}, converged {all(s.converged for s in solutions)}")
    return [test @ s.weights + s.bias for s in solutions]


def scikit_learn(x: Tensor, y: Tensor, test: Tensor, classes: int) -> list[Tensor]:
    """The same by L-BFGS on the features as they are."""
    model = LogisticRegression(max_iter=1000, tol=1e-4, warm_start=True)
    found, iterations = [], []
    for l2 in STRENGTHS:
        model.set_params(C=1 / (l2 * len(x))).fit(x.numpy(), y.numpy())
        iterations.append(int(model.n_iter_[0]))
        found.append(torch.from_numpy(model.decision_function(test.numpy())))
    print(f"scikit-learn: iterations {iterations}")
    return found


def sgd(x: Tensor, y: Tensor, test: Tensor, classes: int) -> list[Tensor]:
    """The probe of most papers."""
    return [sgd_at(l2, x, y, classes)(test).detach() for l2 in STRENGTHS]


def sgd_at(l2: float, x: Tensor, y: Tensor, classes: int) -> torch.nn.Linear:
    """Train a layer for one strength."""
    layer = torch.nn.Linear(x.shape[1], classes)
    groups = [{"params": [layer.weight], "weight_decay": l2}, {"params": [layer.bias]}]
    optimizer = torch.optim.SGD(groups, lr=RATE, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * (len(x) // BATCH))
    for _ in range(EPOCHS):
        order = torch.randperm(len(x))
        for rows in order[: len(x) // BATCH * BATCH].split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(layer(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    return layer


def main() -> None:
    """Time all three, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", nargs="?")
    parser.add_argument("--size", nargs=4, type=int, default=[50_000, 10_000, 512, 10])
    asked = parser.parse_args()
    data = load_file(asked.features) if asked.features else made(*asked.size)
    scaler = StandardScaler().fit(data["train"].numpy())
    x, test = (torch.from_numpy(scaler.transform(data[part].numpy())).float() for part in ("train", "test"))
    y, truth = data["train_labels"], data["test_labels"]
    classes = int(y.max()) + 1
    probes: list[Callable[[Tensor, Tensor, Tensor, int], list[Tensor]]] = [ours, scikit_learn, sgd]
    print(f"{len(x):,} × {x.shape[1]}, {classes} classes, {torch.get_num_threads()} threads")
    first = 0.0
    for probe in probes:
        started = time.perf_counter()
        logits = probe(x, y, test, classes)
        seconds = time.perf_counter() - started
        first = first or seconds
        top1 = [100 * (found.argmax(1) == truth).double().mean().item() for found in logits]
        told = ", ".join(f"{value:.2f}" for value in top1)
        print(f"{probe.__name__}: {seconds:.1f} s ({seconds / first:.1f} × ours), top-1 % {told}", flush=True)


if __name__ == "__main__":
    main()
