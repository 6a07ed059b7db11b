"""Choices of features against the networks' own parts, taken one by one."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from diptych.backbones.build import build_backbone
from diptych.backbones.feature_choice import FeatureChoice, features_of, layers, parse_choice
from diptych.backbones.patches import PatchNetwork
from diptych.errors import ConfigError


def built(name, size=32):
    torch.manual_seed(0)
    return build_backbone(name, image_size=size).module.eval().requires_grad_(False)


def pictures(size=32, count=3):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def chosen(module, kind="pooled", layer=None, size=32):
    return features_of(module, pictures(size), FeatureChoice(kind=kind, layer=layer))


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def refusal(module, kind, layer=None, size=32):
    with pytest.raises(ConfigError) as caught:
        chosen(module, kind, layer, size)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def resnet():
    return built("resnet20v2")


@pytest.fixture(scope="module")
def vit():
    return built("timm:test_vit", 64)


@pytest.mark.parametrize("name", ["resnet20v2", "resnet20v2-nofinal", "timm:test_resnet", "timm:test_vit", "patches:9"])
def test_pooled_is_what_the_network_returns(name):
    module = built(name)
    assert torch.equal(chosen(module), module(pictures()))


@pytest.mark.parametrize("name", ["resnet20v2", "resnet20v2-nofinal", "timm:resnet18", "timm:test_efficientnet"])
def test_the_mean_of_a_grid_is_pooled_where_a_network_ends_in_a_mean(name):
    module = built(name, 64)
    grid = chosen(module, "grid", size=64)
    pooled = module(pictures(64))
    assert grid.shape == (3, 4 * pooled.shape[1])
    close(grid.unflatten(1, (-1, 4)).mean(dim=2), pooled)
    assert grid.unflatten(1, (-1, 4)).std(dim=2).mean() > 1e-3  # and yet the quarters differ


def test_a_grid_is_ordered_by_channel_row_and_column(resnet):
    cells = resnet.final(resnet.blocks(resnet.stem(pictures())))
    quarters = [cells[:, :, y : y + 4, x : x + 4].mean(dim=(2, 3)) for y in (0, 4) for x in (0, 4)]
    close(chosen(resnet, "grid"), torch.stack(quarters, dim=2).flatten(1))


@pytest.mark.parametrize(("kind", "layer"), [("pooled", None), ("pooled", 1)])
def test_multicrop_is_the_mean_over_crops_made_one_picture_at_a_time(resnet, kind, layer):
    rows = []
    for picture in pictures():
        found = []
        for top, left in [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]:  # 28 of 32 pixels
            crop = picture[:, top : top + 28, left : left + 28]
            crop = F.interpolate(crop[None], size=(32, 32), mode="bilinear", align_corners=False)
            for view in (crop, torch.flip(crop, dims=[-1])):
                found.append(features_of(resnet, view, FeatureChoice(kind=kind, layer=layer))[0])
        rows.append(sum(found) / 10)
    close(chosen(resnet, "multicrop", layer), torch.stack(rows))


@pytest.mark.parametrize("name", ["resnet20v2", "timm:test_vit", "patches:9"])
def test_multicrop_finds_a_picture_and_its_mirror_image_alike(name):
    module = built(name)
    same = features_of(module, pictures().flip(3), FeatureChoice(kind="multicrop"))
    torch.testing.assert_close(same, chosen(module, "multicrop"), rtol=1e-3, atol=1e-3)
    assert (module(pictures().flip(3)) - module(pictures())).abs().max() > 0.01


# Transformers


def test_tokens_are_those_of_the_patches_without_the_class_token(vit):
    found = vit.forward_features(pictures(64))
    assert found.shape == (3, 1 + 16, 64)
    close(chosen(vit, size=64), found[:, 0])
    close(chosen(vit, "tokens", size=64), found[:, 1:].mean(dim=1))


def test_a_transformers_grid_has_its_tokens_in_their_places(vit):
    tokens = vit.forward_features(pictures(64))[:, 1:]  # 4 × 4 patches, row by row
    quarters = [tokens[:, [p, p + 1, p + 4, p + 5]].mean(dim=1) for p in (0, 2, 8, 10)]
    close(chosen(vit, "grid", size=64), torch.stack(quarters, dim=2).flatten(1))


def test_an_inner_layer_of_a_transformer_has_a_class_token_and_patch_tokens_after_the_last_norm(vit):
    x = vit.norm_pre(vit._pos_embed(vit.patch_embed(pictures(64))))
    for place, block in enumerate(vit.blocks):
        x = block(x)
        close(chosen(vit, "pooled", place, 64), vit.norm(x)[:, 0])
        close(chosen(vit, "tokens", f"blocks.{place}", 64), vit.norm(x)[:, 1:].mean(dim=1))
    for kind in ("pooled", "tokens", "grid"):
        close(chosen(vit, kind, -1, 64), chosen(vit, kind, size=64))


def test_a_transformer_that_averages_its_tokens_averages_those_of_inner_layers():
    module = built("timm:test_vit2", 64)
    assert module.global_pool == "avg"
    close(chosen(module, "pooled", 1, 64), chosen(module, "tokens", 1, 64))


# Other networks


def test_the_layers_of_our_resnet_end_with_each_group(resnet):
    assert layers(resnet) == ("stem", "group1", "group2", "group3")
    x = resnet.stem(pictures())
    close(chosen(resnet, layer=0), x.mean(dim=(2, 3)))
    for number, width in enumerate((64, 128, 256), start=1):
        for block in resnet.blocks[2 * number - 2 : 2 * number]:
            x = block(x)
        assert x.shape[1] == width
        close(chosen(resnet, layer=f"group{number}"), x.mean(dim=(2, 3)))
        close(chosen(resnet, layer=number - 4), x.mean(dim=(2, 3)))
    close(resnet.final(x).mean(dim=(2, 3)), chosen(resnet))


def test_the_layers_of_timms_resnet_are_its_own():
    module = built("timm:test_resnet", 64)
    assert layers(module) == ("act1", "layer1", "layer2", "layer3", "layer4")
    x = module.layer2(module.layer1(module.maxpool(module.act1(module.bn1(module.conv1(pictures(64)))))))
    close(chosen(module, "pooled", "layer2", 64), x.mean(dim=(2, 3)))
    close(chosen(module, "grid", "layer2", 64), F.adaptive_avg_pool2d(x, 2).flatten(1))


@pytest.mark.parametrize("name", ["test_convnext", "test_mambaout", "test_vit_relpos", "test_nfnet"])
def test_timms_other_families_give_cells_of_their_last_width(name):
    module = built(f"timm:{name}", 96)
    cells = timm.create_model(name, num_classes=0).num_features
    assert chosen(module, "grid", size=96).shape == (3, 4 * cells)
    close(chosen(module, "grid", -1, 96).shape, (3, 4 * cells))


def test_patches_have_nine_cells_to_average():
    module = built("patches:9")
    assert isinstance(module, PatchNetwork)
    cells = module(pictures()).view(3, 3, 3, 9)  # row, column, numbers
    close(chosen(module, "tokens"), cells.flatten(1, 2).mean(dim=1))
    first = cells[:, :2, :2].mean(dim=(1, 2))  # four of nine: quarters of an odd number of cells overlap
    close(chosen(module, "grid")[:, ::4], first)


# Refused


def test_a_network_without_tokens_says_what_it_has(resnet):
    assert refusal(resnet, "tokens").endswith("has no patch tokens: choose pooled, multicrop or grid")
    assert "no patch tokens" in refusal(built("timm:test_resnet"), "tokens", 1)


def test_a_single_cell_has_no_quarters():
    module = built("timm:test_resnet")
    assert refusal(module, "grid").startswith("--features grid: this backbone has 1 × 1 cells here, too few")
    assert chosen(module, "grid", 1).shape[0] == 3


def test_layers_that_are_not_there_are_refused(resnet):
    assert refusal(resnet, "pooled", "group4") == "--layer: this backbone has no 'group4'; did you mean 'group3'?"
    for outside in (4, -5):
        assert refusal(resnet, "grid", outside) == f"--layer must be from -4 to 3 (stem to group3), not {outside}"
    assert refusal(built("patches:9"), "pooled", 0).endswith("no layers to choose from: leave out --layer")


def test_a_network_of_which_nothing_is_known_gives_what_it_returns():
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
    assert chosen(module, "multicrop").shape == (3, 5)
    assert "no map of cells" in refusal(module, "grid")
    assert "leave out --layer" in refusal(module, "multicrop", 1)


# Typed


def test_what_is_typed_becomes_a_choice():
    assert parse_choice() == FeatureChoice()
    assert parse_choice("grid", "-2") == FeatureChoice(kind="grid", layer=-2)
    assert parse_choice("pooled", "blocks.3") == FeatureChoice(layer="blocks.3")
    with pytest.raises(ConfigError, match="unknown --features 'pool'; did you mean 'pooled'?"):
        parse_choice("pool")
