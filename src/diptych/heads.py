"""Small fully connected networks on top of a backbone.

SimSiam (arXiv 2011.10566), section 3 and appendix D: the projector has batch norm on every layer, its output included,
and ReLU on all but the last; the predictor is a bottleneck with batch norm and ReLU on its hidden layer only.
"""

from typing import Literal

from torch import nn


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
