"""Maps of every kind of network, against timm's own features_only, hooks, and what the network returns."""

import pytest
import timm
import torch
from torch import nn

from diptych.backbones.build import build_backbone
from diptych.backbones.pyramid import PyramidBackbone, pyramid
from diptych.errors import ConfigError, DataError


def built(name: str, size: int = 32) -> nn.Module:
    torch.manual_seed(0)
    return build_backbone(name, image_size=size).module.eval()


def noise(*sides: int) -> torch.Tensor:
    return torch.randn(2, 3, *sides, generator=torch.Generator().manual_seed(1))


def refusal(module: nn.Module, *sides: int) -> str:
    with pytest.raises((ConfigError, DataError)) as refused:
        pyramid(module, noise(*sides))
    return str(refused.value)


@pytest.mark.parametrize(
    ("name", "built_for", "sides", "strides", "channels"),
    [
        ("resnet20v2", 16, (24, 16), (1, 1, 2, 4), (16, 64, 128, 256)),
        ("timm:test_resnet", 128, (64, 32), (2, 4, 8, 16, 32), (32, 32, 48, 192, 96)),
        ("timm:resnet18", 32, (16, 8), (1, 1, 2, 4, 8), (64, 64, 128, 256, 512)),  # the stem for small pictures
        ("timm:test_convnext", 64, (64, 64), (4, 8, 16, 32), (24, 32, 48, 64)),
        ("timm:pvt_v2_b0", 64, (64, 96), (4, 8, 16, 32), (32, 64, 160, 256)),  # whose patches overlap
        ("timm:mixer_s32_224", 64, (64, 64), (32,), (512,)),  # all eight layers are of one stride
        ("timm:sequencer2d_s", 56, (28, 56), (7, 14, 14, 14), (192, 384, 384, 384)),
        ("timm:test_vit", 64, (48, 96), (16,), (64,)),
        ("patches:5", 16, (36, 36), (12,), (5,)),
    ],
)
def test_shapes_and_strides(
    name: str, built_for: int, sides: tuple[int, int], strides: tuple[int, ...], channels: tuple[int, ...]
) -> None:
    found = pyramid(built(name, built_for), noise(*sides))
    assert found.strides == strides and len(found.names) == len(strides)
    for cells, stride, width in zip(found.maps, strides, channels, strict=True):
        assert cells.shape == (2, width, sides[0] // stride, sides[1] // stride) and cells.dtype == torch.float32


def test_a_cifar_resnet_gives_the_ends_of_its_groups() -> None:
    module, seen = built("resnet20v2"), []
    for part in (module.stem, module.blocks[1], module.blocks[3], module.final):
        part.register_forward_hook(lambda _, __, out: seen.append(out))
    returned, found = module(noise(16, 16)), pyramid(module, noise(16, 16))
    assert found.names == ("stem", "group1", "group2", "group3")
    for cells, expected in zip(found.maps, seen[:4], strict=True):
        torch.testing.assert_close(cells, expected)
    torch.testing.assert_close(found.maps[-1].mean(dim=(2, 3)), returned)


def test_a_convolutional_network_gives_what_timm_calls_features() -> None:
    module = built("timm:test_resnet", 128)
    reference = timm.create_model("test_resnet", features_only=True).eval()
    reference.load_state_dict(module.state_dict(), strict=False)
    found = pyramid(module, noise(64, 64))
    assert found.names == tuple(reference.feature_info.module_name())
    assert found.strides == tuple(reference.feature_info.reduction())
    for cells, expected in zip(found.maps, reference(noise(64, 64)), strict=True):
        torch.testing.assert_close(cells, expected)


def test_a_transformer_gives_its_patch_tokens_in_their_places() -> None:
    module = built("timm:test_vit", 64)
    found = pyramid(module, noise(32, 64))
    tokens = module.forward_features(noise(32, 64))[:, 1:]  # the first is the class token
    torch.testing.assert_close(found.maps[0][:, :, 1, 2], tokens[:, 1 * 4 + 2])
    assert found.names == ("blocks.5",)


def test_patches_gives_its_cells() -> None:
    module = built("patches:5", 16)
    cells = module(noise(16, 16)).view(2, 9, 5)
    torch.testing.assert_close(pyramid(module, noise(16, 16)).maps[0][:, :, 2, 1], cells[:, 2 * 3 + 1])


def test_gradients_flow_unless_the_network_is_frozen() -> None:
    module = built("resnet20v2")
    sum(cells.mean() for cells in pyramid(module, noise(8, 8)).maps).backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    module.requires_grad_(False)
    assert not any(cells.requires_grad for cells in pyramid(module, noise(8, 8)).maps)


def test_sides_that_do_not_divide_are_refused_with_the_number_that_they_must_be_multiples_of() -> None:
    words = "pictures of {} px do not divide into this backbone's cells: give sides that are multiples of {} px"
    assert refusal(built("resnet20v2"), 16, 18) == words.format("16 × 18", 4)
    assert refusal(built("resnet20v2"), 9, 9) == words.format("9 × 9", 4)
    assert refusal(built("timm:test_resnet", 128), 33, 33) == words.format("33 × 33", 32)
    assert refusal(built("timm:test_resnet", 128), 16, 16) == words.format("16 × 16", 32)  # its only cell is half one
    assert refusal(built("timm:test_resnet", 128), 72, 72) == words.format("72 × 72", 32)  # 3 cells, not of 24
    assert refusal(built("timm:test_vit", 64), 64, 40) == words.format("64 × 40", 16)
    assert refusal(built("timm:sequencer2d_s", 56), 64, 64) == words.format("64 × 64", 14)
    assert refusal(built("timm:dla34", 64), 66, 66) == words.format("66 × 66", 32)  # its branches do not meet


def test_a_refusal_moves_no_statistics() -> None:
    module = built("resnet20v2").train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items() if "running" in name}
    PyramidBackbone(module, image_size=16)
    assert module.training and module.stem.training
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in before.items())


def test_networks_that_have_no_maps_of_a_picture_are_refused() -> None:
    assert "no maps" in refusal(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)), 8, 8)
    assert refusal(built("patches:5", 32), 32, 36).startswith("patches takes square pictures of 32 px or more")
    assert refusal(built("patches:5", 32), 16, 16).endswith("not 16 × 16 px: give others")
    assert refusal(built("timm:cait_xxs24_224", 32), 16, 16).startswith("this backbone takes no pictures of 16 × 16 px")
    other = "this backbone takes no pictures of 64 × 64 px ({}): give pictures of the size that it was built for, or"
    assert refusal(built("timm:coatnet_pico_rw_224", 32), 64, 64).startswith(
        other.format("The size of tensor a (16) must match the size of tensor b (4) at non-singleton dimension 3")
    )
    assert refusal(built("timm:mvitv2_tiny", 32), 64, 64).startswith(
        other.format("index 15 is out of bounds for dimension 0 with size 15")
    )
    advice = "cells: give others, or choose another --backbone"
    assert refusal(built("timm:levit_128s", 224), 224, 224).endswith(advice)  # 64 would do, which it does not take
    maps = pyramid(
        built("timm:coatnet_pico_rw_224", 32), noise(32, 32)
    )  # its last cell is whole, and nothing else fits
    assert maps.strides[-1] == 32


def test_errors_that_are_not_of_shapes_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="dtype|type"):
        pyramid(built("timm:test_resnet", 64).double(), noise(64, 64))


def test_the_body_of_a_feature_pyramid_network() -> None:
    module = built("resnet20v2")
    body = PyramidBackbone(module, image_size=16, names=["group1", "group3"])
    assert (body.names, body.out_channels, body.strides) == (("group1", "group3"), (64, 256), (1, 4))
    found = body(noise(16, 16))
    assert list(found) == ["group1", "group3"]
    torch.testing.assert_close(found["group3"], pyramid(module, noise(16, 16)).maps[3])
    assert PyramidBackbone(module, image_size=16).out_channels == (16, 64, 128, 256)
    with pytest.raises(ConfigError, match="no map 'group4'; did you mean 'group3'?"):
        PyramidBackbone(module, image_size=16, names=["group4"])
    with pytest.raises(DataError, match="multiples of 4 px"):
        PyramidBackbone(module, image_size=18)
