"""Small networks on top of a backbone.

``mlp`` is what most papers use. ``projector`` and ``bottleneck_predictor`` are SimSiam's (arXiv 2011.10566, section 3
and appendix D): the projector has batch norm on every layer, its output included, and ReLU on all but the last; the
predictor is a bottleneck with batch norm and ReLU on its hidden layer only.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional


def mlp(
    in_features: int, widths: Sequence[int], *, norm: bool = True, gelu: bool = False, last_bias: bool = True
) -> nn.Sequential:
    """Fully connected network ``(B, in_features)`` → ``(B, widths[-1])``; the last layer is linear.

    Args:
        in_features: length of what comes in.
        widths: of each layer's output.
        norm: batch norm on every hidden layer, whose bias it makes needless.
        gelu: GELU instead of ReLU.
        last_bias: whether the last layer has a bias.
    """
    modules: list[nn.Module] = []
    for width in widths[:-1]:
        modules.append(nn.Linear(in_features, width, bias=not norm))
        if norm:
            modules.append(nn.BatchNorm1d(width))
        modules.append(nn.GELU() if gelu else nn.ReLU(inplace=True))
        in_features = width
    return nn.Sequential(*modules, nn.Linear(in_features, widths[-1], bias=last_bias))


class Prototypes(nn.Module):
    """Cosine similarity with learned directions: ``(B, features)`` → ``(B, count)`` float32 in -1..1.

    SwAV (arXiv 2006.09882) and DINO (arXiv 2104.14294) end so. Both sides are normalised here, and compared in float32,
    under autocast too: bfloat16 has similarities in steps of up to 1/256, which a temperature of 0.01 makes 0.4.
    """

    def __init__(self, features: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(functional.normalize(nn.init.normal_(Tensor(count, features)), dim=1))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the similarity of each embedding with each prototype."""
        with torch.autocast(embeddings.device.type, enabled=False):
            directions = functional.normalize(self.weight.float(), dim=1)
            similarities: Tensor = functional.normalize(embeddings.float(), dim=1) @ directions.T
        return similarities


def projector(in_features: int, width: int, layers: int, *, last_affine: bool = False) -> nn.Sequential:
    """Projection MLP ``(B, in_features)`` → ``(B, width)``.

    Args:
        in_features: length of the backbone's feature vector.
        width: of every layer, 2048 in the paper.
        layers: 2 on CIFAR, 3 on ImageNet in the paper.
        last_affine: whether the last batch norm learns a scale and a shift; the authors' code has none there.
    """
    modules: list[nn.Module] = []
    for layer in range(layers):
        last = layer == layers - 1
        modules += [
            nn.Linear(in_features if layer == 0 else width, width, bias=False),
            nn.BatchNorm1d(width, affine=last_affine or not last),
        ]
        if not last:
            modules.append(nn.ReLU(inplace=True))
    return nn.Sequential(*modules)


def bottleneck_predictor(
    features: int, hidden: int, order: Literal["norm-relu", "relu-norm"] = "norm-relu"
) -> nn.Sequential:
    """Prediction MLP ``(B, features)`` → ``(B, features)`` through ``hidden`` units.

    Args:
        features: length of the projector's output, 2048 in the paper.
        hidden: 512 in the paper, a quarter of ``features``.
        order: ``norm-relu`` as in the paper; ``relu-norm`` is the Keras example's.
    """
    norm, relu = nn.BatchNorm1d(hidden), nn.ReLU(inplace=order == "norm-relu")
    middle = (norm, relu) if order == "norm-relu" else (relu, norm)
    return nn.Sequential(nn.Linear(features, hidden, bias=False), *middle, nn.Linear(hidden, features))
