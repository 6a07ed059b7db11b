"""The linear evaluation of the Keras example "Self-supervised contrastive learning with SimSiam", to the letter.

On the frozen backbone in inference mode: one softmax layer, batches of 128, 5 epochs, SGD with momentum 0.9 and a
learning rate of 0.03 that falls to 0 along a cosine over 5 · (N // 128) steps; its own schedule starts at step 0
although the example shares the object with pretraining. Training pictures are flipped with probability one half anew
each epoch; the example's 32 → 32 crop does nothing, and neither does its early stopping with a patience of 5 epochs.

The layer sees each picture in one of two versions, so the features of both are computed once and each epoch picks
one of them: the same numbers as running the backbone again. Deviation: pictures are shuffled fully (the example's
buffer holds 1,024, enough only because CIFAR-10's pictures come in no order).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.errors import DataError
from diptych.evaluation.features import Features
from diptych.seeding import generator

EPOCHS = 5
BATCH = 128
PEAK_LR = 0.03
MOMENTUM = 0.9


@dataclass(frozen=True, kw_only=True)
class KerasProbe:
    """A layer trained by the example's protocol."""

    logits: Tensor
    """``(M, K)`` float32, of the test pictures."""
    epoch_losses: list[float]
    """Mean cross-entropy of each epoch's batches; still falling fast means that the probe is not trained."""


def learning_rate(step: int, decay_steps: int) -> float:
    """Cosine decay from 0.03 at step 0 to 0 at ``decay_steps`` and after (Keras' ``CosineDecay``)."""
    return PEAK_LR * 0.5 * (1 + math.cos(math.pi * min(step, decay_steps) / decay_steps))


def fit_keras(train: Features, flipped: Tensor, test: Tensor, classes: int, seed: int) -> KerasProbe:
    """Train the example's softmax layer and predict the test pictures.

    Args:
        train: ``(N, D)`` features of the training pictures as they are, with labels below ``classes``.
        flipped: ``(N, D)`` features of the same pictures flipped left to right.
        test: ``(M, D)`` features of the test pictures, not flipped.
        classes: how many there are.
        seed: of the layer's first weights, the order and the flips.

    Raises:
        DataError: fewer training pictures than one batch.
    """
    count, width = train.values.shape
    if count < BATCH:
        raise DataError(
            f"the Keras example's protocol needs at least {BATCH} training pictures and here are {count}: leave out "
            "--protocol keras"
        )
    random = generator(seed)
    limit = math.sqrt(6 / (width + classes))  # Glorot-uniform
    weights = (torch.rand(width, classes, generator=random) * 2 - 1) * limit
    parameters = (weights, torch.zeros(classes))
    velocities = (torch.zeros_like(weights), torch.zeros(classes))
    step, epoch_losses = 0, []
    for _ in range(EPOCHS):
        is_flipped = torch.rand(count, generator=random) < 0.5
        values = torch.where(is_flipped[:, None], flipped, train.values)
        total = 0.0
        for rows in torch.split(torch.randperm(count, generator=random), BATCH):
            lr = learning_rate(step, EPOCHS * (count // BATCH))
            total += _step(parameters, velocities, values[rows], train.labels[rows], lr) * len(rows)
            step += 1
        epoch_losses.append(total / count)
    return KerasProbe(logits=test @ parameters[0] + parameters[1], epoch_losses=epoch_losses)


def _step(
    parameters: tuple[Tensor, Tensor], velocities: tuple[Tensor, Tensor], x: Tensor, labels: Tensor, lr: float
) -> float:
    """Take one SGD step in place and return the batch's mean cross-entropy before it.

    Keras multiplies the learning rate into the velocity (v = m·v - lr·g), PyTorch multiplies it in afterwards; they
    differ while the rate changes, so Keras' form is written out.
    """
    logits = x @ parameters[0] + parameters[1]
    slope = (logits.softmax(dim=1) - F.one_hot(labels, logits.shape[1])) / len(x)
    for parameter, velocity, gradient in zip(parameters, velocities, (x.T @ slope, slope.sum(dim=0)), strict=True):
        parameter.add_(velocity.mul_(MOMENTUM).sub_(lr * gradient))
    return F.cross_entropy(logits, labels).item()
