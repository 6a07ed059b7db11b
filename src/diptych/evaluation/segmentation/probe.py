"""The linear segmentation probe: multinomial logistic regression to convergence on the features of drawn pixels.

DINOv2 (Oquab et al. 2023, arXiv 2304.07193, section 7.4) trains a batch norm and a 1×1 convolution on the last map,
and enlarges the logits bilinearly. The same here, with three deviations: the minimum is found (``probes/linear.py``)
instead of approached by SGD, so that nothing depends on a learning rate; features are standardised by the mean and the
spread of the drawn pixels, of which batch norm's are a moving estimate; and an L2 penalty is chosen on a fifth of the
training pictures, as everywhere in this library.

Pixels of one picture are alike, so pictures are held out whole.
"""

from collections import Counter

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from diptych.errors import DataError
from diptych.evaluation.probes.linear import HELD_OUT, L2_GRID, PATIENCE, Planes, Problem
from diptych.evaluation.segmentation.pixels import Drawn, Levels, enlarged
from diptych.evaluation.truth import loss as loss_of
from diptych.seeding import SPLIT, generator

_STREAM = 6
"""Parts this stream of random numbers from those of the other splits."""


def fit_pixels(values: Tensor, drawn: Drawn, classes: int, seed: int) -> Planes:
    """Choose the L2 strength on held-out training pictures, and fit on all of them.

    Args:
        values: ``(P, D)`` float32, features of the drawn pixels.
        drawn: the pixels.
        classes: K; each has a pixel.
        seed: of the pictures that are held out.

    Raises:
        DataError: no picture can be held out, because each shows a class that no other does.
    """
    held = hold_out_pictures(drawn, seed)
    if not held.any():
        raise DataError(
            "every training picture shows a class that no other does, which leaves none to choose the probe's L2 "
            "strength on: add pictures"
        )
    kept = StandardScaler().fit(values[~held].numpy())
    problem = Problem(_standardised(kept, values[~held]), drawn.labels[~held], classes)
    unseen = _standardised(kept, values[held])
    losses: list[float] = []
    converged = True
    for l2 in L2_GRID:
        solution = problem.solve(l2)
        converged &= solution.converged
        losses.append(loss_of(unseen @ solution.weights + solution.bias, drawn.labels[held]).item())
        if len(losses) - 1 - int(np.argmin(losses)) >= PATIENCE:
            break
    l2 = L2_GRID[int(np.argmin(losses))]
    scaler = StandardScaler().fit(values.numpy())
    solution = Problem(_standardised(scaler, values), drawn.labels, classes).solve(l2)
    return Planes(scaler=scaler, solution=solution, l2=l2, converged=converged and solution.converged)


def predict(planes: Planes, levels: Levels, images: Tensor, at_once: int) -> Tensor:
    """Return the class ``(N, S, S)`` uint8 of every pixel.

    Args:
        planes: the fitted probe.
        levels: what tells of pictures.
        images: ``(N, C, S, S)`` as they are stored.
        at_once: pictures at a time.
    """
    scale, mean = (torch.from_numpy(found).float() for found in (planes.scaler.scale_, planes.scaler.mean_))
    weights = planes.solution.weights / scale[:, None]
    bias = planes.solution.bias - mean @ weights
    parts = (enlarged(levels(part), weights, bias, images.shape[-1]) for part in torch.split(images, at_once))
    return torch.cat([logits.argmax(dim=1).byte() for logits in parts])


def hold_out_pictures(drawn: Drawn, seed: int) -> Tensor:
    """Return which pixels ``(P,)`` bool belong to held-out pictures: a fifth of them, one at least.

    A picture is not held out that would leave a class without a pixel to fit on.
    """
    by_picture = torch.split(drawn.labels, drawn.rows.bincount().tolist())
    shown = [sorted(set(labels.tolist())) for labels in by_picture]
    left = Counter(label for labels in shown for label in labels)
    wanted = max(1, round(HELD_OUT * len(shown)))
    held: list[int] = []
    for row in torch.randperm(len(shown), generator=generator(seed, SPLIT, _STREAM)).tolist():
        if len(held) < wanted and all(left[label] > 1 for label in shown[row]):
            held.append(row)
            left.subtract(shown[row])
    return torch.isin(drawn.rows, torch.tensor(held, dtype=torch.int64))


def _standardised(scaler: StandardScaler, values: Tensor) -> Tensor:
    return torch.from_numpy(scaler.transform(values.numpy()))
