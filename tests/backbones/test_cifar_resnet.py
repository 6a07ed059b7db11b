import pytest
import torch
from torch import nn

from diptych.backbones.cifar_resnet import CifarResNetV2
from diptych.errors import ConfigError


@pytest.mark.parametrize("depth", [20, 56, 110, 164])
def test_depth_counts_the_layers_with_weights_as_the_paper_does(depth):
    """9n + 2: the stem, three layers a block, and the classifier that is not here; shortcuts do not count."""
    network = CifarResNetV2(depth)
    shortcuts = {id(block.shortcut) for block in network.blocks}
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d) and id(m) not in shortcuts]
    assert len(layers) + 1 == depth


def test_weights_of_the_examples_network():
    """Counted by hand from resnet_cifar10_v2.py: convolution kernels, and two numbers a channel for each batch norm."""
    kernels = 27 * 16
    norms = 16
    channels = 16
    for width, out in ((16, 64), (64, 128), (128, 256)):
        for block in range(2):
            kernels += channels * out if block == 0 else 0
            kernels += channels * width + 9 * width * width + width * out
            norms += channels + width + width
            channels = out
    assert sum(p.numel() for p in CifarResNetV2(20, final_norm=False).parameters()) == kernels + 2 * norms
    assert sum(p.numel() for p in CifarResNetV2(20).parameters()) == kernels + 2 * (norms + 256)


@pytest.mark.parametrize("final_norm", [True, False])
def test_features(final_norm):
    network = CifarResNetV2(20, in_channels=5, final_norm=final_norm)
    features = network(torch.randn(3, 5, 32, 32))
    assert features.shape == (3, network.num_features)
    assert (features.min() >= 0) == final_norm  # a mean of ReLUs, or of plain sums


def test_feature_maps_shrink_twice():
    sizes = []
    network = CifarResNetV2(20)
    for block in network.blocks:
        block.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[1:])))
    network(torch.randn(1, 3, 32, 32))
    assert sizes[1::2] == [(64, 32, 32), (128, 16, 16), (256, 8, 8)]


@pytest.mark.parametrize("depth", [2, 18, 21])
def test_other_depths_are_refused(depth):
    with pytest.raises(ConfigError, match="20, 56, 110 or 164"):
        CifarResNetV2(depth)
