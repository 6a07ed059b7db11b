"""``--to torch-export`` and ``--to onnx``: a backbone with its preprocessing as one graph, for a batch of any size."""

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from diptych.errors import ConfigError
from diptych.handoff.card import KEY, HandoffCard
from diptych.handoff.graph import INPUT, OUTPUT, PictureNetwork, example

OPSET = 18
"""Of ONNX: what torch's exporter writes without converting, and ONNX Runtime has read since 1.14."""
EXTRA_FILE = f"{KEY}.json"
BATCH = "batch"
LARGEST = 2**31 - 2**20
"""Bytes that a single ONNX file can hold, less some for what is no weight."""
PORTION = 7
"""Pictures that an artefact is tried on at a time: an odd number, and a rest, show whether the batch is free."""


def trace(network: PictureNetwork, name: str) -> torch.export.ExportedProgram:
    """Turn a network into a graph whose batch is free.

    Args:
        network: in evaluation mode.
        name: of the backbone, for messages.

    Raises:
        ConfigError: the network decides by its values or by the size of the batch what it computes.
    """
    batch = torch.export.Dim(BATCH, min=1)
    try:
        with _silent():
            return torch.export.export(network, (example(network.made),), dynamic_shapes=({0: batch},))
    except Exception as error:  # torch's own errors share no class: graph breaks, guards, operators without a form
        raise ConfigError(
            f"{name} cannot be written as one graph ({_first_line(error)}); choose --to safetensors"
        ) from error


def write_program(path: Path, program: torch.export.ExportedProgram, card: HandoffCard) -> None:
    """Write what ``torch.export.load`` reads, with the card as the extra file ``diptych.json``."""
    content = io.BytesIO()  # a file would have to be called .pt2, and this one is still to get its name
    torch.export.save(program, content, extra_files={EXTRA_FILE: card.text})
    path.write_bytes(content.getvalue())


def run_program(path: Path, pictures: Tensor) -> Tensor:
    """Load a program that was just written and return the features ``(N, D)`` of stored pictures."""
    network = torch.export.load(io.BytesIO(path.read_bytes())).module()
    with torch.inference_mode():
        return torch.cat([network(part) for part in torch.split(pictures, PORTION)])


def refuse_without_onnx(network: torch.nn.Module) -> None:
    """Refuse ONNX before anything is computed, where it cannot come to anything.

    Raises:
        ConfigError: a package is missing, or the weights do not fit into one file.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"--to onnx needs {error.name}: type `pip install 'diptych[onnx]'`") from error
    if sum(tensor.nbytes for tensor in network.state_dict().values()) > LARGEST:
        raise ConfigError("an ONNX file holds 2 GiB at most, and this backbone has more: choose --to torch-export")


def write_onnx(path: Path, program: torch.export.ExportedProgram, card: HandoffCard) -> None:
    """Write an ONNX file of operator set 18, with the card in its metadata.

    Raises:
        ConfigError: ONNX has no form of an operator of the network, which is named; or the exporter gives up.
    """
    other = "choose --to torch-export or safetensors"
    try:
        with _silent():
            made = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: BATCH},),  # for its name alone: the program knows which side is free
                verbose=False,
                external_data=False,
            )
    except Exception as error:  # as above
        if operator := _operator(error):
            raise ConfigError(f"ONNX has no form of {operator}, which {card.backbone} needs: {other}") from error
        raise ConfigError(f"{card.backbone} cannot be written as ONNX ({_first_line(error)}): {other}") from error
    assert made is not None
    made.model.metadata_props.update({KEY: card.text, "licence": card.licence, "takes": card.takes})
    made.save(path, external_data=False)


def run_onnx(path: Path, pictures: Tensor) -> Tensor:
    """Return the features ``(N, D)`` of stored pictures by ONNX Runtime, on the CPU.

    Raises:
        ConfigError: ONNX Runtime has not what the file needs, which it names.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it writes to the terminal by itself, before it raises
    try:
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        parts = [session.run([OUTPUT], {INPUT: part.numpy()})[0] for part in torch.split(pictures, PORTION)]
    except Exception as error:  # its own errors share no class either
        raise ConfigError(
            f"ONNX Runtime cannot run what was written ({_first_line(error)}), so it was removed: choose --to "
            "torch-export or safetensors"
        ) from error
    return torch.cat([torch.from_numpy(part) for part in parts])


def _operator(error: BaseException) -> str | None:
    """Find the operator in what torch's exporter says, or in the errors from which that came."""
    inner: BaseException | None = error
    while inner is not None:
        if named := re.search(r"OpOverload\(op='([\w.:]+)'|(aten[.:]+\w+(?:\.\w+)?)", str(inner)):
            return str(named[1] or named[2])
        inner = inner.__cause__
    return None


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep torch's exporters, which speak of their own inner matters at length, from the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
