import pytest
import torch
from torch import nn

from diptych.backbones.build import build_backbone
from diptych.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "size", "features"),
    [
        ("resnet20v2", 32, 256),
        ("resnet20v2-nofinal", 32, 256),
        ("timm:resnet18", 32, 512),
        ("timm:resnet18", 96, 512),
        ("timm:vit_tiny_patch16_224", 64, 192),
        ("timm:mobilenetv3_small_050", 64, 1024),
    ],
)
def test_pictures_to_features(name, size, features):
    built = build_backbone(name, image_size=size)
    assert built.num_features == features
    assert built.module.eval()(torch.randn(2, 3, size, size)).shape == (2, features)


def test_small_pictures_get_the_small_stem_and_it_is_said():
    small = build_backbone("timm:resnet18", image_size=32)
    assert small.module.conv1.stride == (1, 1) and small.module.conv1.kernel_size == (3, 3)
    assert isinstance(small.module.maxpool, nn.Identity)
    assert "3×3 stride-1" in small.notes[0]
    large = build_backbone("timm:resnet18", image_size=65)
    assert large.module.conv1.stride == (2, 2) and not large.notes


def test_channels():
    assert build_backbone("timm:resnet18", image_size=32, channels=4).module(torch.randn(2, 4, 32, 32)).shape == (
        2,
        512,
    )


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("resnet21v2", "9n"),
        ("resnet18", "unknown backbone"),
        ("timm:resnet19", "did you mean 'resnet18'|did you mean 'resnet1"),
        ("timm:zzz", "resnet50"),
    ],
)
def test_unknown_names_say_what_to_type(name, says):
    with pytest.raises(ConfigError, match=says):
        build_backbone(name, image_size=32)
