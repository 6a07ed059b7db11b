"""``--to safetensors``: the weights of any backbone with their card, and back again."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from diptych.distributed import World, pick_device
from diptych.errors import DataError
from diptych.frozen import FrozenBackbone, initial_backbone, weights_digest
from diptych.handoff.card import KEY, HandoffCard, read_card


def write_weights(path: Path, module: nn.Module, card: HandoffCard) -> None:
    """Write the weights by the names that the network gives them, and the card as metadata."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    path.write_bytes(save(tensors, metadata={"format": "pt", "licence": card.licence, KEY: card.text}))


def read_backbone(path: str | Path, device: str = "auto") -> FrozenBackbone:
    """Load what ``diptych export --to safetensors`` wrote, or ``model.safetensors`` of ``--to timm`` and of a push.

    Args:
        path: of the safetensors file.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        DataError: there is no such file, it is damaged, or ``diptych export`` did not write it.
        ConfigError: there is no such device.
    """
    return load_backbone(path, device)[0]


def load_backbone(path: str | Path, device: str) -> tuple[FrozenBackbone, HandoffCard]:
    """Load what ``read_backbone`` does, with its card."""
    try:
        with safe_open(path, framework="pt") as file:
            card = read_card(file.metadata() or {}, path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{path} cannot be read ({str(error).splitlines()[0]}); is it a whole safetensors file?"
        ) from error
    made = card.preprocessing
    module, _, _ = initial_backbone(card.backbone, made.image_size, 0, made.channels)
    damaged = f"{path} is damaged: its weights are not those that its card tells of; write it again"
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise DataError(damaged) from error
    if weights_digest(module) != card.weights:
        raise DataError(damaged)
    return FrozenBackbone(module, card.about, pick_device(device, World())), card
