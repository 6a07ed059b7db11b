"""ResNet v2 for small pictures, of depth 9n + 2 (20, 56, 110, 164, …).

Identity Mappings in Deep Residual Networks, He et al. 2016 (arXiv 1603.05027), in the bottleneck form that the Keras
SimSiam example uses (keras-idiomatic-programmer, ``resnet_cifar10_v2.py``): widths 16 → 64 → 128 → 256, the shortcut
convolution of a group's first block reads the block's input before its normalisation.

Deviations from the example's network, none of which it can feel: convolutions carry no bias (a batch norm, that of the
projector included, removes each of them), padding is symmetric (TensorFlow pads a stride-2 convolution on one side
only), and batch norm uses PyTorch's momentum and epsilon. Deviation from the paper: the stem ends in batch norm and
ReLU, and the first block normalises again, both as in the example.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diptych.errors import ConfigError


class Bottleneck(nn.Module):
    """Pre-activation 1×1, 3×3, 1×1 block: ``(B, in_channels, H, W)`` → ``(B, out_channels, H/stride, W/stride)``."""

    def __init__(self, in_channels: int, width: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        self.residual = nn.Sequential(
            *_norm_relu(in_channels),
            nn.Conv2d(in_channels, width, 1, bias=False),
            *_norm_relu(width),
            nn.Conv2d(width, width, 3, stride, padding=1, bias=False),
            *_norm_relu(width),
            nn.Conv2d(width, out_channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return shortcut + residual."""
        out: Tensor = self.shortcut(x) + self.residual(x)
        return out


class CifarResNetV2(nn.Module):
    """Pictures ``(B, in_channels, H, W)`` → features ``(B, 256)``, averaged over positions.

    Args:
        depth: 9n + 2 with n ≥ 1: n bottleneck blocks in each of three groups.
        in_channels: of the pictures.
        final_norm: batch norm and ReLU before the average, as the paper has it; False is the Keras example's form.

    Raises:
        ConfigError: ``depth`` is not 9n + 2.
    """

    num_features = 256

    def __init__(self, depth: int, in_channels: int = 3, final_norm: bool = True) -> None:
        super().__init__()
        blocks, remainder = divmod(depth - 2, 9)
        if remainder or blocks < 1:
            raise ConfigError(f"a CIFAR ResNet v2 has depth 9n + 2, not {depth}: use 20, 56, 110 or 164")
        self.stem = nn.Sequential(nn.Conv2d(in_channels, 16, 3, padding=1, bias=False), *_norm_relu(16))
        groups: list[nn.Module] = []
        channels = 16
        for width, out_channels, stride in ((16, 64, 1), (64, 128, 2), (128, 256, 2)):
            for block in range(blocks):
                groups.append(Bottleneck(channels, width, out_channels, stride if block == 0 else 1))
                channels = out_channels
        self.blocks = nn.Sequential(*groups)
        self._anew = False
        self.final = nn.Sequential(*_norm_relu(channels)) if final_norm else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the activations inside blocks again in the backward pass instead of keeping them, as timm's do."""
        self._anew = enable

    def forward(self, images: Tensor) -> Tensor:
        """Return the features ``(B, 256)`` of normalised pictures ``(B, C, H, W)``."""
        out = self.stem(images)
        for block in self.blocks:
            anew = self._anew and torch.is_grad_enabled()
            out = checkpoint(block, out, use_reentrant=False) if anew else block(out)
        features: Tensor = self.final(out).mean(dim=(2, 3))
        return features


def _norm_relu(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
