"""The linear segmentation probe: multinomial logistic regression to convergence on the features of drawn pixels.

DINOv2 (Oquab et al. 2023, arXiv 2304.07193, section 7.4) trains a batch norm and a 1×1 convolution on the last map,
and enlarges the logits bilinearly. The same here, with three deviations: the minimum is found (``probes/linear.py``)
instead of approached by SGD, so that nothing depends on a learning rate; features are standardised by the mean and the
spread of the drawn pixels, of which batch norm's are a moving estimate; and an L2 penalty is chosen on a fifth of the
training pictures, as everywhere in this library.

Pixels of one picture are alike, so pictures are held out whole, and so are groups of them.
"""

import torch
from torch import Tensor

from diptych.errors import DataError
from diptych.evaluation.features import Features
from diptych.evaluation.probes.holding_out import whole
from diptych.evaluation.probes.linear import Planes, chosen_planes
from diptych.evaluation.segmentation.pixels import Drawn, Levels, enlarged


def fit_pixels(values: Tensor, drawn: Drawn, classes: int, seed: int, groups: Tensor | None = None) -> Planes:
    """Choose the L2 strength on held-out training pictures, and fit on all of them.

    Args:
        values: ``(P, D)`` float32, features of the drawn pixels.
        drawn: the pixels.
        classes: K; each has a pixel.
        seed: of the pictures that are held out.
        groups: ``(N,)`` int64, what each picture belongs to; None where each stands for itself.

    Raises:
        DataError: no picture can be held out, because each shows a class that no other does.
    """
    held = hold_out_pictures(drawn, seed, groups)
    if not held.any():
        what = "picture" if groups is None else "folder"
        raise DataError(
            f"every training {what} shows a class that no other does, which leaves none to choose the probe's L2 "
            f"strength on: add {what}s"
        )
    rows = Features(values, drawn.labels)
    return chosen_planes(rows, (~held).nonzero()[:, 0], held.nonzero()[:, 0], classes)


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


def hold_out_pictures(drawn: Drawn, seed: int, groups: Tensor | None = None) -> Tensor:
    """Return which pixels ``(P,)`` bool belong to held-out pictures, or groups, as ``holding_out.whole`` says."""
    return whole(drawn.labels, drawn.rows if groups is None else groups[drawn.rows], seed)
