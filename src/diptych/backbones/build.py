"""One string names a backbone: ``resnet20v2``, ``resnet20v2-nofinal``, ``timm:resnet18``.

A string is all that a saved run needs to rebuild its network, and loading it never imports a name read from a file.
timm takes a second or two to load, and is loaded only where a network of its own is asked for.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from diptych.backbones.cifar_resnet import CifarResNetV2
from diptych.backbones.patches import patch_network
from diptych.errors import ConfigError, suggest

SMALL_PICTURE = 64
"""Pictures of at most this many pixels a side get the small stem: 3×3, stride 1, no max-pool (SimCLR, app. B.9)."""

POPULAR_TIMM = ("resnet18", "resnet50", "convnext_tiny", "vit_small_patch16_224")
OWN = ("resnet20v2", "resnet56v2", "resnet110v2", "resnet164v2")
TRANSFORMERS = (
    *("beit", "cait", "crossvit", "deit", "eva", "hiera", "mvitv2", "pit", "pvt_v2", "swin_transformer"),
    *("swin_transformer_v2", "tnt", "twins", "vision_transformer", "vision_transformer_sam", "volo", "xcit"),
)
"""timm's modules of networks with layer norms and attention, and without batch norm."""


@dataclass(frozen=True, kw_only=True)
class BuiltBackbone:
    """A network and what was decided while building it."""

    module: nn.Module
    """Normalised pictures ``(B, C, H, W)`` → features ``(B, num_features)``."""
    num_features: int
    notes: tuple[str, ...]
    """Sentences for the log: what was changed to fit the pictures."""


def build_backbone(name: str, *, image_size: int, channels: int = 3) -> BuiltBackbone:
    """Build the network that ``name`` describes, randomly initialised from torch's global generator.

    Args:
        name: ``resnet{depth}v2`` (depth 9n + 2; with ``-nofinal``, the Keras example's form without the last batch
            norm and ReLU), or ``timm:{model}``.
        image_size: height and width of the pictures in pixels.
        channels: of the pictures.

    Raises:
        ConfigError: no such network, or it cannot take pictures of this size; the text suggests a name.
    """
    if name.startswith("timm:"):
        return _build_timm(name.removeprefix("timm:"), image_size, channels)
    if name == "patches" or name.startswith("patches:"):
        network = patch_network(name, image_size=image_size, channels=channels)
        return BuiltBackbone(module=network, num_features=network.num_features, notes=())
    match = re.fullmatch(r"resnet(\d+)v2(-nofinal)?", name)
    if not match:
        raise ConfigError(f"unknown backbone '{name}'{suggest(name, OWN)} (or timm:MODEL, such as timm:resnet18)")
    module = CifarResNetV2(int(match[1]), in_channels=channels, final_norm=not match[2])
    notes = ("the backbone has no final batch norm and ReLU (the Keras example's form)",) if match[2] else ()
    return BuiltBackbone(module=module, num_features=module.num_features, notes=notes)


def is_transformer(name: str) -> bool:
    """Whether ``name`` is a vision transformer, which papers train with settings of their own."""
    if not name.startswith("timm:"):
        return False
    from timm.models import is_model_in_modules

    return bool(is_model_in_modules(name.removeprefix("timm:"), TRANSFORMERS))


def _build_timm(model: str, image_size: int, channels: int) -> BuiltBackbone:
    import timm

    if not timm.is_model(model):
        raise ConfigError(
            f"timm has no model '{model}'{suggest(model, timm.list_models(model[:3] + '*') or POPULAR_TIMM)}"
        )
    options: dict[str, Any] = {"pretrained": False, "num_classes": 0, "in_chans": channels}
    try:
        module = _create(timm.create_model, model, {"img_size": image_size, "dynamic_img_size": True}, options)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"timm:{model} cannot be built for {image_size} px pictures ({str(error).splitlines()[0]}); "
            f"choose another --backbone or --image-size"
        ) from error
    notes: tuple[str, ...] = ()
    if image_size <= SMALL_PICTURE and _shrink_stem(module):
        notes = (f"pictures are {image_size} px: timm:{model} gets a 3×3 stride-1 stem without max-pool",)
    # Some models end in a layer of their own between the last feature map and the classifier.
    num_features = getattr(module, "head_hidden_size", None) or module.num_features
    return BuiltBackbone(module=module, num_features=int(num_features), notes=notes)


def _create(create: Callable[..., Any], model: str, sizes: dict[str, Any], options: dict[str, Any]) -> Any:
    """Create a model that knows its pictures' size, and takes small views too, as far as it can be told."""
    while True:
        try:
            return create(model, **sizes, **options)
        except TypeError:  # convolutional models take pictures of any size and know none of this
            if not sizes:
                raise
            sizes.popitem()


def _shrink_stem(module: nn.Module) -> bool:
    """Give a ResNet-like model a 3×3 stride-1 first convolution and no max-pool; False if it has no such stem."""
    stem = getattr(module, "conv1", None)
    if not isinstance(stem, nn.Conv2d) or not hasattr(module, "maxpool"):
        return False
    module.conv1 = nn.Conv2d(stem.in_channels, stem.out_channels, 3, stride=1, padding=1, bias=stem.bias is not None)
    nn.init.kaiming_normal_(module.conv1.weight, mode="fan_out", nonlinearity="relu")
    module.maxpool = nn.Identity()
    return True
