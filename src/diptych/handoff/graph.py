"""A backbone as one graph that takes pictures as they are stored: what ONNX and torch-export hold.

Scaling to 0..1 and normalisation are inside, because they are what people forget; resizing is not, because it belongs
to whoever reads the files. The input has the type of the stored pictures, so that one which was scaled or normalised
before is refused by its type instead of giving wrong features: uint8 0..255, uint16 0..65535, or float32 in the
run's own units.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.backbones.patches import PatchNetwork
from diptych.frozen import Preprocessing, prepared

INPUT, OUTPUT = "pictures", "features"
"""Names of what the graph takes and returns."""


class PictureNetwork(nn.Module):
    """Stored pictures ``(B, C, S, S)`` → features ``(B, num_features)`` float32.

    Args:
        module: the network, in evaluation mode.
        made: how its pictures were prepared.
    """

    def __init__(self, module: nn.Module, made: Preprocessing) -> None:
        super().__init__()
        self.module, self.made = module, made

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the features."""
        features: Tensor = self.module(prepared(pictures, self.made, pictures.device))
        return features


class WholePatches(nn.Module):
    """The network ``patches`` for a batch of any size: all pictures at once, and float32 throughout.

    ``PatchNetwork`` makes codes of a few pictures at a time, which a graph with a dynamic batch cannot, and in bfloat16
    where the machine is faster so, which another machine would not repeat.

    Args:
        network: fitted, or as it was built.
    """

    def __init__(self, network: PatchNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return the features ``(B, num_features)`` float32 of normalised pictures ``(B, C, S, S)``."""
        features = self._features(images)
        return (features + self._features(images.flip(3))) / 2 if self.network.flip else features

    def _features(self, images: Tensor) -> Tensor:
        made = self.network
        patches = F.normalize(made.patches(made.shrunk(images)) @ made.whitening, dim=2)
        codes = F.relu(patches @ made.filters.T - made.threshold)
        return F.normalize((made.pooling @ codes - made.mean) @ made.projection, dim=2).flatten(1)


def exact(module: nn.Module) -> nn.Module:
    """Return a network that computes in float32 on every machine: the same one, unless it is ``patches``."""
    return WholePatches(module) if isinstance(module, PatchNetwork) else module


def example(made: Preprocessing) -> Tensor:
    """Return two pictures of zeros, of the shape and type that the graph takes."""
    return torch.zeros(2, made.channels, made.image_size, made.image_size, dtype=getattr(torch, made.depth))
