import pytest
import torch
from torch import Tensor, nn

from diptych.errors import RunFolderError
from diptych.evaluation.features import backbone_features, is_averaged, pixel_features
from diptych.frozen import BackboneCard, FrozenBackbone, Preprocessing


def pictures(count: int, side: int) -> Tensor:
    return torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def frozen(module: nn.Module, side: int) -> FrozenBackbone:
    preprocessing = Preprocessing(image_size=side, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    card = BackboneCard(
        schema_version=1, backbone="test", num_features=3 * side**2, seed=0, preprocessing=preprocessing
    )
    return FrozenBackbone(module, card, torch.device("cpu"))


def test_small_pictures_are_compared_pixel_by_pixel() -> None:
    images = pictures(3, 32)
    found = pixel_features(images, torch.arange(3))
    assert not is_averaged(images)
    torch.testing.assert_close(found.values, images.reshape(3, -1) / 255)
    assert found.labels.tolist() == [0, 1, 2]


def test_large_pictures_are_averaged_over_areas() -> None:
    images = pictures(2, 64)
    found = pixel_features(images, torch.zeros(2)).values.reshape(2, 3, 32, 32)
    assert is_averaged(images)
    blocks = images.float().reshape(2, 3, 32, 2, 32, 2).mean(dim=(3, 5)) / 255
    torch.testing.assert_close(found, blocks)


def test_backbone_features_are_of_normalised_pictures_and_may_be_changed() -> None:
    images = pictures(5, 4)
    found = backbone_features(frozen(nn.Flatten(), 4), images, torch.arange(5)).values
    torch.testing.assert_close(found, (images.reshape(5, -1) / 255 - 0.5) / 0.5)
    found += 1  # a tensor made in inference mode could not take part in later gradients; ours must


def test_features_that_are_not_finite_are_refused() -> None:
    class Diverged(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) / 0

    with pytest.raises(RunFolderError, match="not finite"):
        backbone_features(frozen(Diverged(), 4), pictures(2, 4), torch.arange(2))
