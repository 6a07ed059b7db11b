"""What travels with every artefact: how pictures are prepared, who may use it, how it was made, and from what.

It is one JSON text under the key ``diptych``: in the metadata of a safetensors or ONNX file, in timm's ``config.json``,
or the extra file ``diptych.json`` of a torch-export archive. A folder of this machine is nobody else's business: of
absolute paths, only the last name is kept.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import timm
from torch import nn

from diptych.config import from_dict, to_dict
from diptych.errors import ConfigError, DataError, RunFolderError, printable
from diptych.frozen import BackboneCard, Preprocessing, weights_digest
from diptych.handoff.form import WEIGHTS, Form
from diptych.runs import SCHEMA_VERSION, RunFolder

KEY = "diptych"
"""Under which the card lies in metadata."""
NOT_STATED = "not stated"
TIMM = "timm-pretrained"
"""What ``--init-from`` calls timm's own weights."""


@dataclass(frozen=True, kw_only=True)
class HandoffCard:
    """What an artefact says of itself."""

    schema_version: int
    form: Form
    takes: str
    """What is to be fed to it, in a sentence."""
    backbone: str
    num_features: int
    preprocessing: Preprocessing
    weights: str
    """Hash of the weights, see ``frozen.weights_digest``."""
    licence: str
    """As it was stated at the export."""
    began: str
    """What training began with, and under which licence that is where timm says so."""
    method: str
    recipe: str | None
    command: str
    """That trained it."""
    steps: int | None
    epochs: float | None
    data: str
    """Which pictures it learned from."""
    data_pictures: int | None
    data_fingerprint: str
    versions: tuple[str, ...]
    """That trained it: ``torch 2.14.1``."""
    diptych: str
    """The version that wrote the artefact."""

    @property
    def about(self) -> BackboneCard:
        """What rebuilds the network; the weights that it then has are replaced, so any seed does."""
        return BackboneCard(
            schema_version=self.schema_version,
            backbone=self.backbone,
            num_features=self.num_features,
            seed=0,
            preprocessing=self.preprocessing,
        )

    @property
    def text(self) -> str:
        """The card as JSON."""
        return json.dumps(to_dict(self), allow_nan=False, ensure_ascii=False)


def card_of(run: RunFolder, about: BackboneCard, module: nn.Module, form: Form, licence: str | None) -> HandoffCard:
    """Collect what a finished run says of its backbone.

    Args:
        run: the run's folder.
        about: its ``backbone.json``.
        module: the network with its weights.
        form: of the artefact.
        licence: a text; None where it is not stated.

    Raises:
        RunFolderError: ``run.json`` is damaged.
        ConfigError: the licence is no text for people.
    """
    try:
        return _card(run.read_card(), about, weights_digest(module), form, _licence(licence))
    except (KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(
            f"{run.config} is damaged: it does not say how the run was made ({type(error).__name__}: {error}); "
            "put it back as it was, or pretrain again with a new --out"
        ) from error


def _card(found: Mapping[str, Any], about: BackboneCard, weights: str, form: Form, licence: str) -> HandoffCard:
    config, data, result = found["config"], found["data"], found["result"] or {}
    return HandoffCard(
        schema_version=SCHEMA_VERSION,
        form=form,
        takes=_takes(form, about.preprocessing),
        backbone=about.backbone,
        num_features=about.num_features,
        preprocessing=about.preprocessing,
        weights=weights,
        licence=licence,
        began=_began(about),
        method=config["method"]["name"],
        recipe=found["recipe"],
        command=without_folders(found["command"] or ""),
        steps=result.get("steps"),
        epochs=result.get("epochs"),
        data=last_name(data["name"]),
        data_pictures=data["pictures"],
        data_fingerprint=data["fingerprint"],
        versions=tuple(f"{name} {version}" for name, version in found["versions"].items()),
        diptych=metadata.version("diptych"),
    )


def read_card(strings: Mapping[str, str], where: object) -> HandoffCard:
    """Read the card of an artefact's metadata.

    Raises:
        DataError: there is none, it is damaged, or another version wrote it; ``where`` says in which file.
    """
    again = "write it again with `diptych export RUN --to FORM --out FILE`"
    if KEY not in strings:
        raise DataError(f"{where} was not written by diptych export (its metadata has no '{KEY}'): {again}")
    try:
        values: Any = json.loads(strings[KEY])
        if isinstance(values, dict) and values.get("schema_version") != SCHEMA_VERSION:
            raise DataError(
                f"{where} was written by another version of diptych (schema {values.get('schema_version')}, this one "
                f"knows {SCHEMA_VERSION}): {again}"
            )
        return from_dict(HandoffCard, values)
    except (ValueError, TypeError, ConfigError) as error:
        raise DataError(f"{where} is damaged ({error}): {again}") from error


def without_folders(command: str) -> str:
    """Shorten every absolute path of a command line to its last name, also behind ``--option=``."""
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    shortened = []
    for word in words:
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        shortened.append(option + equals + last_name(value))
    return shlex.join(shortened)


def last_name(name: str) -> str:
    """Return the last name of an absolute path, also from somebody's home ``~``; anything else as it is."""
    return Path(name).name or name if name.startswith(("/", "~")) else name


def _licence(text: str | None) -> str:
    """Return a licence as one line."""
    line = " ".join((text or "").split())
    if printable(line) != line:
        raise ConfigError(f"--licence '{line}' holds what cannot be shown: type a name, such as CC-BY-4.0")
    return line or NOT_STATED


def _takes(form: Form, made: Preprocessing) -> str:
    size = f"(B, {made.channels}, {made.image_size}, {made.image_size})"
    if form in WEIGHTS:
        return f"float32 pictures {size}, brought to 0..1, less mean, divided by std"
    return f"{made.depth} pictures {size} as they are stored, neither scaled nor normalised: the graph does both"


def _began(about: BackboneCard) -> str:
    if about.init_from is None:
        return "random weights"
    if about.init_from == TIMM:
        known = timm.get_pretrained_cfg(about.backbone.removeprefix("timm:"))
        return f"timm's own weights, licence: {(known and known.license) or NOT_STATED}"
    return f"weights of {last_name(about.init_from)}"
