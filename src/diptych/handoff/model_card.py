"""``README.md`` of a pushed backbone: what it is, what was measured beside which baselines, and how to load it.

Numbers are those of the evaluations that lie in the run folder, in the words of ``diptych evaluate``; there are no
others. YAML values are written as JSON in ASCII, so that no name can end one, nor a line.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from diptych.errors import printable
from diptych.handoff.card import NOT_STATED, HandoffCard, last_name

HUB_LICENCES = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "unlicense", "gpl-3.0", "agpl-3.0", "lgpl-3.0"),
    *("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-4.0"),
)
"""Names that the hub knows; any other goes under ``other``, with its letters and digits as the name that the hub asks
for, and its whole text further down."""
LONGEST = 96
"""Letters of such a name."""

_BY_TIMM = """\
```python
import timm
import torch
from PIL import Image

model = timm.create_model("hf-hub:{repo}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
picture = transform(Image.open("picture.png").convert("RGB"))
with torch.inference_mode():
    features = model(picture[None])  # (1, {width})
```
"""
_BY_DIPTYCH = """\
```python
from diptych import read_backbone
from huggingface_hub import hf_hub_download

backbone = read_backbone(hf_hub_download("{repo}", "model.safetensors"))
features = backbone.embed(["picture.png"])  # (1, {width}); resizing and normalisation are inside
```
"""


def model_card(repo: str, card: HandoffCard, measured: Sequence[tuple[str, str]], *, by_timm: bool) -> str:
    """Return the text of ``README.md``.

    Args:
        repo: ``user/name``.
        card: of the backbone.
        measured: name and text of each evaluation.
        by_timm: whether timm can load it.
    """
    front = "\n".join(f"{key}: {_yaml(value)}" for key, value in _front(card, by_timm=by_timm).items())
    loading = (_BY_TIMM if by_timm and _is_plain(card) else "") + "\n" + _BY_DIPTYCH
    parts = [
        f"---\n{front}\n---",
        f"# {repo.rpartition('/')[2]}",
        f"A `{card.backbone}` pretrained without labels ({_inline(card.method)}) by diptych {card.diptych}. It turns a "
        f"picture into {card.num_features} numbers; it has no classifier.",
        "## How to load it",
        loading.format(repo=repo, width=card.num_features).strip(),
        "## What was measured",
        *([_evaluation(name, text) for name, text in measured] or ["Nothing: the run was never evaluated."]),
        "## How it was made",
        "\n".join(f"- {key}: {_inline(value)}" for key, value in _made(card).items()),
        "## What it takes",
        "\n".join(f"- {key}: {_inline(value)}" for key, value in _taken(card).items()),
    ]
    lines = "\n\n".join(parts).splitlines()
    return "\n".join(printable(line) for line in lines) + "\n"


def measured_in(result: Mapping[str, Any], text: str) -> tuple[str, str]:
    """Return the name of an evaluation and its text, without the folders of this machine.

    Args:
        result: what its JSON file holds; every absolute path in it is shortened in the text.
        text: the same in words.
    """
    for name in sorted(set(_strings(result)), key=len, reverse=True):  # a path before the folder that it lies in
        if (short := last_name(name)) != name:
            text = text.replace(name, short)
    return str(result["name"]), text


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(inner)


def _front(card: HandoffCard, *, by_timm: bool) -> dict[str, Any]:
    front: dict[str, Any] = {
        "library_name": "timm" if by_timm else "diptych",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["image-feature-extraction", "self-supervised-learning", "diptych", card.method],
    }
    if card.licence.lower() in HUB_LICENCES:
        front["license"] = card.licence.lower()
    elif card.licence != NOT_STATED:
        front["license"] = "other"
        if name := re.sub(r"[^a-z0-9.]+", "-", card.licence.lower()).strip("-")[:LONGEST]:
            front["license_name"] = name
    return front


def _yaml(value: Any) -> str:
    """Write as JSON whose other than ASCII characters are escaped as YAML has them, not as JSON: by one code each."""
    text = json.dumps(value, ensure_ascii=False)
    return re.sub(r"[^ -~]", lambda found: f"\\U{ord(found[0]):08x}", text)


def _is_plain(card: HandoffCard) -> bool:
    """Whether timm's own transform prepares such pictures."""
    return card.preprocessing.channels == 3 and card.preprocessing.depth == "uint8"


def _evaluation(name: str, text: str) -> str:
    longest = max((len(found) for found in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"### {_inline(name)}\n\n{fence}text\n{text}\n{fence}"


def _made(card: HandoffCard) -> dict[str, str]:
    count = "an unknown number" if card.data_pictures is None else f"{card.data_pictures:,}"
    epochs = "" if card.epochs is None else f" ({card.epochs:.3g} epochs)"
    return {
        "method": card.method,
        "recipe": card.recipe or "none",
        "began with": card.began,
        "steps": "unknown" if card.steps is None else f"{card.steps:,}{epochs}",
        "pictures": f"{card.data}, {count} of them; fingerprint {card.data_fingerprint}",
        "command": card.command,
        "versions": ", ".join(card.versions),
        "licence": card.licence,
        "hash of the weights": card.weights,
    }


def _taken(card: HandoffCard) -> dict[str, str]:
    made = card.preprocessing
    size = f"{made.image_size} px a side: the shorter side is resized to it (bicubic), then the centre is cropped"
    taken = {
        "size": size,
        "channels": str(made.channels),
        "bit depth": made.depth,
        "mean of values 0..1": _numbers(made.mean),
        "std of values 0..1": _numbers(made.std),
    }
    if made.low:
        taken |= {"becomes 0": _numbers(made.low), "becomes 1": _numbers(made.high)}
    if made.tile:
        taken["tiles"] = f"pictures were cut into squares of {made.tile} px first"
    return taken


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _inline(text: str) -> str:
    """Keep Markdown and HTML from reading names that other people chose."""
    return re.sub(r"([\\`*_\[\]<>&#|])", r"\\\1", " ".join(text.split()))
