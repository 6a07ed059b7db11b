"""``--to timm``: a folder that ``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads.

``config.json`` has timm's own keys, as its ``hf-hub:`` and ``local-dir:`` sources read them, and the card beside these;
``model.safetensors`` is the same file as ``--to safetensors`` writes, for ``checkpoint_path`` too.
"""

from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from diptych.config import to_dict
from diptych.errors import ConfigError
from diptych.frozen import Preprocessing, initial_backbone, prepared
from diptych.handoff.card import KEY, HandoffCard
from diptych.handoff.folders import CONFIG_FILE, WEIGHTS_FILE
from diptych.handoff.weights import write_weights
from diptych.runs import write_json

PREFIX = "timm:"
OTHER_FORMS = "choose --to safetensors, onnx or torch-export"
_DESCRIPTION = "A backbone pretrained with {method} by diptych {version}, without a classifier"


def why_not_timm(backbone: str, made: Preprocessing) -> str | None:
    """Say why timm cannot build a backbone; None where it can.

    Args:
        backbone: its name.
        made: what its pictures are.
    """
    if not backbone.startswith(PREFIX):
        return f"timm has no network '{backbone}'"
    _, _, notes = initial_backbone(backbone, made.image_size, 0, made.channels)
    return f"timm itself has no form of it for small pictures ({notes[0]})" if notes else None


def refuse_not_timm(backbone: str, made: Preprocessing) -> None:
    """Refuse a backbone that timm cannot build.

    Raises:
        ConfigError: with the forms that it can take.
    """
    if why := why_not_timm(backbone, made):
        raise ConfigError(f"--to timm: {why}: {OTHER_FORMS}")


def write_timm(folder: Path, module: nn.Module, card: HandoffCard) -> None:
    """Write ``config.json`` and ``model.safetensors`` into an existing folder."""
    write_weights(folder / WEIGHTS_FILE, module, card)
    write_json(folder / CONFIG_FILE, _config(module, card))


def run_timm(folder: Path, pictures: Tensor, made: Preprocessing) -> Tensor:
    """Load a folder as anybody would, by timm alone, and return the features ``(N, D)`` of stored pictures.

    Raises:
        ConfigError: timm cannot load it.
    """
    try:
        network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    except Exception as error:  # of each network's own making
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"--to timm: timm cannot load what was written ({why}): {OTHER_FORMS}") from error
    with torch.inference_mode():
        features: Tensor = network(prepared(pictures, made, torch.device("cpu")))
    return features


def _config(module: nn.Module, card: HandoffCard) -> dict[str, Any]:
    made, known = card.preprocessing, getattr(module, "pretrained_cfg", {})
    model = card.backbone.removeprefix(PREFIX)
    return {
        "architecture": model,
        "num_classes": 0,
        "num_features": card.num_features,
        "model_args": {"in_chans": made.channels} | _sizes(model, made),
        "pretrained_cfg": {
            "input_size": [made.channels, made.image_size, made.image_size],
            "fixed_input_size": False,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": list(made.mean),
            "std": list(made.std),
            "num_classes": 0,
            # By this, timm makes three channels of a photograph into others; its earlier versions would ours, too.
            "first_conv": known.get("first_conv") if made.channels == 3 else None,
            "classifier": known.get("classifier"),
            "license": card.licence,
            "description": _DESCRIPTION.format(method=card.method, version=card.diptych),
        },
        KEY: to_dict(card),
    }


def _sizes(model: str, made: Preprocessing) -> dict[str, Any]:
    """Return the arguments about sizes that a model knows, as ``backbones.build`` gives them."""
    sizes: dict[str, Any] = {"img_size": made.image_size, "dynamic_img_size": True}
    while sizes:
        try:
            timm.create_model(model, num_classes=0, **sizes)
            break
        except TypeError:
            sizes.popitem()
    return sizes
