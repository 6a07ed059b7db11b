"""Pictures of other channels and bit depths than 3 × 8, in every form, by the card that it carries."""

import json

import onnx
import onnxruntime
import pytest
import tifffile
import timm
import torch
from handing import make_run, stored
from tiny import flat

from diptych.errors import UserError
from diptych.frozen import Preprocessing, load, prepared
from diptych.handoff.card import read_card
from diptych.handoff.export import export
from diptych.handoff.push import push
from diptych.handoff.weights import read_backbone

SIZE, CPU = 32, torch.device("cpu")
GREY16 = Preprocessing(image_size=SIZE, mean=(0.5,), std=(0.2,), channels=1, depth="uint16")
FOUR = Preprocessing(image_size=SIZE, mean=(0.5, 0.4, 0.3, 0.2), std=(0.2, 0.25, 0.3, 0.2), channels=4)


@pytest.fixture(scope="module", params=[GREY16, FOUR], ids=["grey, 16 bits", "four channels"])
def made(request):
    return request.param


@pytest.fixture(scope="module")
def run(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number, values in enumerate(stored(5, made).numpy()):
        layout = {"planarconfig": "contig"} if made.channels > 1 else {}
        tifffile.imwrite(
            folder / f"{number}.tif", values.transpose(1, 2, 0).squeeze(), photometric="minisblack", **layout
        )
    return make_run(tmp_path_factory.mktemp("runs") / "run", folder, "timm:test_vit", made)


@pytest.mark.parametrize(
    ("to", "name"), [("timm", "b"), ("safetensors", "b.safetensors"), ("onnx", "b.onnx"), ("torch-export", "b.pt2")]
)
def test_every_form_computes_the_same_and_says_what_it_takes(made, run, to, name, tmp_path):
    done = export(run, tmp_path / name, to=to)
    assert done.compared_on == "the run's own pictures" and done.pictures == 5
    assert done.card.preprocessing == made
    depth = "float32" if to in ("timm", "safetensors") else made.depth
    assert done.card.takes.startswith(f"{depth} pictures (B, {made.channels}, 32, 32)")
    shown, network = stored(4, made), load(run, "cpu").module
    with torch.inference_mode():
        wanted, values = network(prepared(shown, made, CPU)), prepared(shown, made, CPU)
        found = read(to, done.path, shown, values)
    assert (found - wanted).abs().max() <= 1e-4


def read(to, path, shown, values):
    """Features of the reader's own making; it sees the artefact and no run."""
    if to == "timm":
        config = json.loads((path / "config.json").read_text())
        read_card({"diptych": json.dumps(config["diptych"])}, path)
        assert config["pretrained_cfg"]["input_size"] == list(values.shape[1:])
        return timm.create_model(f"local-dir:{path}", pretrained=True).eval()(values)
    if to == "safetensors":
        return read_backbone(path, "cpu").embed(shown)
    if to == "torch-export":
        return torch.export.load(path).module()(shown)
    (taken,) = onnx.load(path).graph.input
    kinds = {"uint8": onnx.TensorProto.UINT8, "uint16": onnx.TensorProto.UINT16}
    assert taken.type.tensor_type.elem_type == kinds[str(shown.numpy().dtype)]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["features"], {"pictures": shown.numpy()})[0])


def test_the_model_card_says_channels_and_depth_and_has_no_transform_of_timms(made, run, tmp_path):
    folder = push(run, "me/mine", told=lambda _: "", dry_run=tmp_path / "dry").folder
    text = (folder / "README.md").read_text()
    assert f"- channels: {made.channels}\n" in text and f"- bit depth: {made.depth}\n" in text
    assert "create_transform" not in text and "read_backbone(" in text
    assert f"mean of values 0..1: {', '.join(f'{value:g}' for value in made.mean)}\n" in text


def test_pictures_of_another_kind_are_no_comparison(run, made, tmp_path):
    if made.channels == 1:
        pytest.skip("colours have a faithful form in grey")
    colours = flat(tmp_path / "colours", 3)
    with pytest.raises(UserError) as told:
        export(run, tmp_path / "b.safetensors", to="safetensors", data=str(colours))
    assert "\n" not in str(told.value) and not (tmp_path / "b.safetensors").exists()
