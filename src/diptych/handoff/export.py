"""``diptych export``: a backbone in a form that others read, compared with the run before it gets its name."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diptych.frozen import FrozenBackbone, load, open_finished
from diptych.handoff.card import HandoffCard, card_of
from diptych.handoff.folders import refuse_used
from diptych.handoff.form import Form, check_form
from diptych.handoff.graph import PictureNetwork, exact
from diptych.handoff.parity import compare, refuse_unlike
from diptych.handoff.pictures import pictures_for
from diptych.handoff.programs import (
    refuse_without_onnx,
    run_onnx,
    run_program,
    trace,
    write_onnx,
    write_program,
)
from diptych.handoff.timm_folder import refuse_not_timm, run_timm, write_timm
from diptych.handoff.weights import load_backbone, write_weights
from diptych.progress import Terminal
from diptych.runs import writing, writing_folder


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written, and how near it is to the run."""

    path: Path
    """The file; of timm's form, the folder."""
    form: Form
    difference: float
    """The largest between two features of the run and of the artefact."""
    neighbours_equal: bool
    """Whether the nearest neighbours of each picture are the same; always, or nothing would have been written."""
    pictures: int
    """On which both were compared."""
    compared_on: str
    """Whose they are."""
    card: HandoffCard
    """What the artefact says of itself."""
    sentence: str
    """The comparison, for people."""


def export(
    run: str | Path,
    out: str | Path,
    *,
    to: str,
    licence: str | None = None,
    data: str | None = None,
    data_dir: str | None = None,
    overwrite: bool = False,
    terminal: Terminal | None = None,
) -> Exported:
    """Write the backbone of a finished run in another form, and compare it with the run on real pictures.

    Args:
        run: a finished run.
        out: ``NAME.safetensors``, ``NAME.onnx`` or ``NAME.pt2``; of timm's form, a folder.
        to: ``timm``, ``safetensors``, ``onnx`` or ``torch-export``.
        licence: under which others may use the weights; "not stated" if None.
        data: pictures to compare on, as for ``open_data``; the run's own, or else the bundled photographs, if None.
        data_dir: where the archive of the named data set ``data`` lies.
        overwrite: replace the file at ``out``, or the folder that an earlier export left there.
        terminal: where to speak; silent if None.

    Raises:
        RunFolderError: there is no such run, it has not finished, ``out`` cannot be written, or what was written
            computes something else than the run.
        ConfigError: there is no such form, the backbone has none, a package is missing, or the licence is no text.
        DataError: ``out`` is there already, or there are no pictures to compare on.
    """
    terminal, path = terminal or Terminal(quiet=True), Path(os.path.expanduser(out))
    form = check_form(to, path)
    refuse_used(path, option="--out", overwrite=overwrite, is_folder=form == "timm")
    folder, about = open_finished(run)
    made = about.preprocessing
    if form == "timm":
        refuse_not_timm(about.backbone, made)
    backbone = load(run, "cpu")
    if form == "onnx":
        refuse_without_onnx(backbone.module)
    card = card_of(folder, about, backbone.module, form, licence)
    pictures, whose = pictures_for(made, folder.read_card()["config"], data, data_dir)
    terminal.say(f"comparing on {len(pictures)} pictures: {whose}")
    with writing_folder(path) if form == "timm" else writing(path) as place:
        _write(place, backbone, card)
        parity = compare(reference(backbone, card, pictures), _run(place, card, pictures))
        refuse_unlike(parity, form)
        refuse_used(path, option="--out", overwrite=overwrite, is_folder=form == "timm")  # this took minutes
    return Exported(
        path=path,
        form=form,
        difference=parity.difference,
        neighbours_equal=parity.neighbours_equal,
        pictures=parity.pictures,
        compared_on=whose,
        card=card,
        sentence=parity.sentence,
    )


def reference(backbone: FrozenBackbone, card: HandoffCard, pictures: Tensor) -> Tensor:
    """Return the features ``(N, D)`` that the run computes of stored pictures, in float32."""
    return FrozenBackbone(exact(backbone.module), card.about, torch.device("cpu")).embed(pictures)


def _write(place: Path, backbone: FrozenBackbone, card: HandoffCard) -> None:
    if card.form == "timm":
        write_timm(place, backbone.module, card)
    elif card.form == "safetensors":
        write_weights(place, backbone.module, card)
    else:
        # A program keeps weights as they lie in memory, and takes channels-last ones for parts of something larger.
        module = exact(backbone.module).to(memory_format=torch.contiguous_format)
        network = PictureNetwork(module, card.preprocessing).eval()
        write = write_onnx if card.form == "onnx" else write_program
        write(place, trace(network, card.backbone), card)


def _run(place: Path, card: HandoffCard, pictures: Tensor) -> Tensor:
    """Read what was written, as its reader will, and return the features of stored pictures."""
    if card.form == "timm":
        return run_timm(place, pictures, card.preprocessing)
    if card.form == "safetensors":
        read, found = load_backbone(place, "cpu")
        return reference(read, found, pictures)
    return run_onnx(place, pictures) if card.form == "onnx" else run_program(place, pictures)
