import copy

import pytest
import timm
import torch
from torch import fx, nn

from diptych.backbones.build import build_backbone
from diptych.backbones.folding import folded


def norms(module):
    return sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())


def worn(module):
    """Batch norms as training leaves them, each channel its own."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                for values, low, high in (
                    (part.running_mean, -0.3, 0.3),
                    (part.running_var, 0.4, 2),
                    (part.weight, 0.5, 1.5),
                    (part.bias, -0.2, 0.2),
                ):
                    values.copy_(torch.rand(values.shape, generator=random) * (high - low) + low)
    return module.eval()


@pytest.mark.parametrize(
    ("name", "size", "channels", "left"),
    [("resnet11v2", 16, 3, 9), ("resnet11v2", 16, 13, 9), ("timm:resnet18", 64, 3, 0), ("timm:resnet10t", 32, 1, 0)],
)
def test_features_are_the_same_and_norms_are_gone(name, size, channels, left):
    torch.manual_seed(0)
    module = worn(build_backbone(name, image_size=size, channels=channels).module)
    before = copy.deepcopy(module.state_dict())
    found = folded(module, (channels, size, size))
    assert norms(found) < norms(module) and (name != "timm:resnet18" or norms(found) == left)
    pictures = torch.randn(5, channels, size, size)
    with torch.inference_mode():
        wanted, got = module(pictures), found(pictures)
    assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_a_transformer_is_left_as_it_is():
    module = timm.create_model("test_vit", num_classes=0, img_size=32).eval()
    assert folded(module, (3, 32, 32)) is module


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))

    def forward(self, values):
        return self.stem(values if values.mean() > 0 else -values).mean(dim=(2, 3))


class Deceiving(Branching):
    """Written down, it does what it did as it was looked at: always the other."""

    def forward(self, values):
        return self.stem(values).mean(dim=(2, 3)) * (2 if isinstance(values, fx.Proxy) else 1)


@pytest.mark.parametrize("network", [Branching, Deceiving])
def test_what_cannot_be_written_down_rightly_is_left_as_it_is(network):
    module = worn(network())
    assert folded(module, (3, 8, 8)) is module


def test_a_convolution_that_is_used_twice_keeps_its_norm():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, values):
            plain = self.convolution(values)
            return (self.norm(plain) + plain).mean(dim=(2, 3))

    module = worn(Twice())
    found = folded(module, (3, 8, 8))
    pictures = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(found(pictures), module(pictures))
    assert norms(found) == 1
