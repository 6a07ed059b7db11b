import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tifffile
import timm
import torch
from handing import RGB, SIZE, make_run, stored
from PIL import Image
from safetensors import safe_open
from tiny import flat, picture, tree

from diptych.backbones.patches import patch_network
from diptych.errors import ConfigError, DataError, RunFolderError
from diptych.frozen import Preprocessing, load, prepared, weights_digest
from diptych.handoff.card import read_card, without_folders
from diptych.handoff.export import export
from diptych.handoff.graph import PictureNetwork, WholePatches
from diptych.handoff.programs import trace, write_onnx
from diptych.handoff.weights import read_backbone

DOCS = Path(__file__).parents[2] / "docs" / "handoff.md"
CPU = torch.device("cpu")
VIT = Preprocessing(image_size=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
FLOATS = Preprocessing(
    image_size=SIZE, mean=(0.5, 0.4), std=(0.2, 0.25), channels=2, depth="float32", low=(-1.0, 0.0), high=(3.0, 3.0)
)
SIXTEEN = Preprocessing(image_size=SIZE, mean=(0.5,), std=(0.2,), channels=1, depth="uint16")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return flat(tmp_path_factory.mktemp("pictures"), 12)


@pytest.fixture(scope="module")
def run(tmp_path_factory, pictures):
    return make_run(tmp_path_factory.mktemp("runs") / "own", pictures)


@pytest.fixture(scope="module")
def vit(tmp_path_factory, pictures):
    return make_run(tmp_path_factory.mktemp("runs") / "vit", pictures, "timm:test_vit", VIT)


@pytest.fixture(scope="module")
def done(tmp_path_factory, run, vit):
    """Every form, under the names that the docs use; of timm's, another backbone."""
    out = tmp_path_factory.mktemp("out")
    forms = {"onnx": "b/backbone.onnx", "torch-export": "b/backbone.pt2", "safetensors": "b/backbone.safetensors"}
    made = {to: export(run, out / name, to=to, licence="CC-BY-4.0") for to, name in forms.items()}
    return made | {"timm": export(vit, out / "b" / "backbone", to="timm", licence="CC-BY-4.0")}


def expected(run, shown):
    """What the run computes of stored pictures, by its own module and no code of handoff."""
    backbone = load(run, "cpu")
    with torch.inference_mode():
        return backbone.module(prepared(shown, backbone.preprocessing, CPU))


def onnx_runtime(path, shown):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["features"], {"pictures": shown.numpy()})[0])


def close(found, wanted):
    return found.shape == wanted.shape and (found - wanted).abs().max() <= 1e-4


def test_onnx_takes_stored_pictures_in_batches_of_any_size_and_carries_its_card(run, done):
    artefact = done["onnx"]
    for count in (1, 5):
        assert close(onnx_runtime(artefact.path, stored(count)), expected(run, stored(count)))
    assert artefact.difference <= 1e-4 and artefact.neighbours_equal and artefact.pictures == 12
    assert artefact.compared_on == "the run's own pictures" and "10 nearest neighbours are equal" in artefact.sentence
    model = onnx.load(artefact.path)
    assert {opset.domain: opset.version for opset in model.opset_import}[""] == 18
    properties = {entry.key: entry.value for entry in model.metadata_props}
    card = read_card(properties, artefact.path)
    assert card == artefact.card and properties["licence"] == card.licence == "CC-BY-4.0"
    assert card.preprocessing == RGB and card.data_fingerprint == "ab" * 32 and card.steps == 24
    with pytest.raises(Exception, match=r"tensor\(uint8\)"):  # pictures that somebody has scaled already
        onnx_runtime(artefact.path, stored(2).float() / 255)


def test_a_transformer_goes_to_onnx(vit, tmp_path):
    path = export(vit, tmp_path / "new" / "b.onnx", to="onnx").path
    for count in (1, 5):
        assert close(onnx_runtime(path, stored(count, VIT)), expected(vit, stored(count, VIT)))


def test_torch_export_takes_batches_of_any_size_and_has_the_card_as_a_file(run, done):
    files = {"diptych.json": ""}
    network = torch.export.load(done["torch-export"].path, extra_files=files).module()
    for count in (1, 9):
        assert close(network(stored(count)), expected(run, stored(count)))
    assert read_card({"diptych": files["diptych.json"]}, "it") == done["torch-export"].card


def test_the_snippets_of_the_docs_run_as_written(run, vit, done, monkeypatch):
    folder = done["onnx"].path.parent
    monkeypatch.chdir(folder)
    Image.fromarray(picture(9, 40)).save("picture.png")
    snippets = re.findall(r"## (.*?)\n.*?```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert [title for title, _ in snippets] == ["ONNX Runtime", "torch.export", "timm", "safetensors"]
    for title, code in snippets:
        found = {}
        exec(compile(code, title, "exec"), found)
        features = torch.as_tensor(found["features"])
        assert close(features, load(vit if title == "timm" else run, "cpu").embed(["picture.png"]))


@pytest.mark.parametrize("made", [FLOATS, SIXTEEN])
def test_other_types_are_scaled_inside_the_graph(made, tmp_path):
    draws = np.random.default_rng(0)
    for number in range(3):
        shape = (made.channels, SIZE, SIZE)
        values = draws.integers(0, 65536, shape, "uint16") if made.depth == "uint16" else draws.random(shape, "float32")
        layout = {"planarconfig": "contig"} if made.channels > 1 else {}
        values = values.transpose(1, 2, 0).squeeze()
        tifffile.imwrite(tmp_path / f"{number}.tif", values, photometric="minisblack", **layout)
    run = make_run(tmp_path / "a run", tmp_path, made=made)
    done = export(run, tmp_path / "b.pt2", to="torch-export")
    assert done.compared_on == "the run's own pictures"
    found = torch.export.load(done.path).module()(stored(3, made))
    assert close(found, expected(run, stored(3, made)))


def test_safetensors_is_read_back_as_the_same_backbone(run, done):
    artefact = done["safetensors"]
    ours, theirs = load(run, "cpu"), read_backbone(artefact.path, "cpu")
    assert torch.equal(ours.embed(stored()), theirs.embed(stored()))
    assert theirs.preprocessing == ours.preprocessing and artefact.card.weights == weights_digest(ours.module)
    with safe_open(artefact.path, "pt") as file:
        assert file.metadata()["licence"] == "CC-BY-4.0"


def test_damaged_safetensors_are_refused_in_one_line(run, done, tmp_path):
    whole = done["safetensors"].path.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-1000])
    flipped = bytearray(whole)
    flipped[-2000] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(flipped)
    for name, why in (("cut", "is it a whole"), ("flipped", "is damaged"), ("none", "cannot be read")):
        with pytest.raises(DataError, match=why):
            read_backbone(tmp_path / f"{name}.safetensors")
    with pytest.raises(DataError, match="not written by diptych export"):
        read_backbone(run / "backbone.safetensors")


def test_timm_loads_its_folder_by_itself(vit, done):
    folder = done["timm"].path
    whole = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(whole)
    assert config["input_size"] == (3, 32, 32) and (*config["mean"],) == VIT.mean and (*config["std"],) == VIT.std
    assert whole.pretrained_cfg["license"] == "CC-BY-4.0" and whole.num_classes == 0
    weights = folder / "model.safetensors"
    alone = timm.create_model("test_vit", num_classes=0, img_size=32, checkpoint_path=weights).eval()
    values = prepared(stored(5, VIT), VIT, CPU)
    with torch.inference_mode():
        for network in (whole, alone):
            assert close(network(values), expected(vit, stored(5, VIT)))
        classifier = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=4).eval()
        assert classifier(values).shape == (5, 4)


def test_what_timm_cannot_build_is_refused_with_the_forms_that_go(run, pictures, tmp_path):
    small = make_run(tmp_path / "small", pictures, "timm:resnet18")
    for folder in (run, small):
        with pytest.raises(ConfigError, match=r"^--to timm: .*choose --to safetensors, onnx or torch-export"):
            export(folder, tmp_path / "model", to="timm")
    assert not (tmp_path / "model").exists()


def test_patches_computes_in_float32_and_without_portions(pictures, tmp_path):
    run = make_run(tmp_path / "run", pictures, "patches:8-flip")
    done = export(run, tmp_path / "b.onnx", to="onnx")
    shown = stored(3)
    network = patch_network("patches:8-flip", image_size=SIZE)
    network.load_state_dict(load(run, "cpu").module.state_dict())
    values = prepared(shown, RGB, CPU)
    assert close(WholePatches(network)(values), by_hand(network, values))
    assert close(onnx_runtime(done.path, shown), by_hand(network, values))


def by_hand(network, values):
    """The four steps of ``patches.py``, one picture and one patch at a time, in float64."""
    whitening, filters, mean, projection, pooling = (
        getattr(network, name).double().numpy() for name in ("whitening", "filters", "mean", "projection", "pooling")
    )

    def features(picture):
        picture = picture - picture.mean(axis=(1, 2), keepdims=True)
        codes = []
        for row in range(SIZE - 5):
            for column in range(SIZE - 5):
                patch = picture[:, row : row + 6, column : column + 6].reshape(-1) @ whitening
                codes.append(np.maximum(filters @ (patch / np.linalg.norm(patch)) - network.threshold.item(), 0))
        cells = (pooling @ np.stack(codes) - mean) @ projection
        return (cells / np.linalg.norm(cells, axis=1, keepdims=True)).reshape(-1)

    both = [(features(picture), features(picture[:, :, ::-1])) for picture in values.double().numpy()]
    return torch.tensor(np.stack([(one + other) / 2 for one, other in both]), dtype=torch.float32)


def test_what_does_not_compute_the_same_is_removed(pictures, tmp_path):
    def spoil(module):
        module.stem[0].weight[0, 0, 0, 0] = float("nan")

    run = make_run(tmp_path / "run", pictures, spoil=spoil)
    before = tree(tmp_path)
    for to, name in (("torch-export", "b.pt2"), ("safetensors", "b.safetensors")):
        with pytest.raises(RunFolderError, match="does not compute what the run does"):
            export(run, tmp_path / name, to=to)
    assert tree(tmp_path) == before


def test_nothing_is_overwritten_unasked(run, vit, tmp_path):
    file, folder, other = tmp_path / "b.safetensors", tmp_path / "model", tmp_path / "other"
    file.write_bytes(b"mine")
    other.mkdir()
    (other / "thesis.tex").write_text("mine")
    export(vit, folder, to="timm")
    before = tree(tmp_path)
    for from_run, out, to in ((run, file, "safetensors"), (vit, folder, "timm"), (vit, other, "timm")):
        with pytest.raises(DataError, match="is there already: choose another --out, or add --overwrite"):
            export(from_run, out, to=to)
    with pytest.raises(DataError, match="will not delete it"):
        export(vit, other, to="timm", overwrite=True)
    assert tree(tmp_path) == before
    export(run, file, to="safetensors", overwrite=True)
    export(vit, folder, to="timm", licence="MIT", overwrite=True)
    assert torch.equal(read_backbone(file, "cpu").embed(stored()), load(run, "cpu").embed(stored()))
    assert "MIT" in (folder / "config.json").read_text()


@pytest.mark.parametrize(
    ("to", "out", "said"),
    [
        ("onx", "b.onnx", "unknown --to 'onx'; did you mean 'onnx'"),
        ("onnx", "b.pt", "type --out b.onnx"),
        ("timm", "b.safetensors", "--to timm writes a folder"),
    ],
)
def test_wrong_forms_and_names_are_told(run, to, out, said):
    with pytest.raises(ConfigError, match=said):
        export(run, out, to=to)


class Decomposed(torch.nn.Module):
    def forward(self, values):
        return torch.linalg.eigvals(values.flatten(2) @ values.flatten(2).mT).real


class Undecided(torch.nn.Module):
    def forward(self, values):
        return values.flatten(1) if values.sum() > 0 else -values.flatten(1)


def test_operators_that_onnx_lacks_are_named(done, tmp_path):
    card = done["safetensors"].card
    program = trace(PictureNetwork(Decomposed(), RGB), "decomposed")
    with pytest.raises(ConfigError, match=r"^ONNX has no form of aten[.:]+linalg_eig\w*, which resnet20v2 needs"):
        write_onnx(tmp_path / "b.onnx", program, card)
    with pytest.raises(ConfigError, match="^undecided cannot be written as one graph .*choose --to safetensors$"):
        trace(PictureNetwork(Undecided(), RGB), "undecided")


def test_pictures_that_are_not_here_are_not_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    run = make_run(tmp_path / "run", "cifar10")
    done = export(run, tmp_path / "b.safetensors", to="safetensors")
    assert done.compared_on == "the bundled photographs" and done.pictures == 64
    assert not (tmp_path / ".cache").exists()
    run = make_run(tmp_path / "floats", tmp_path / "gone", made=FLOATS)
    with pytest.raises(DataError, match="give pictures of that kind with --data"):
        export(run, tmp_path / "c.safetensors", to="safetensors")


def test_folders_of_this_machine_are_not_told(pictures, done):
    card = done["onnx"].card
    assert card.command == f"diptych pretrain {pictures.name} --out=own --epochs 2" and card.data == pictures.name
    assert without_folders("diptych pretrain '/home/a b/my set' --out=/tmp/x -k runs/y") == (
        "diptych pretrain 'my set' --out=x -k runs/y"
    )


def test_timms_own_licence_is_told(pictures, tmp_path):
    run = make_run(tmp_path / "run", pictures, "timm:test_vit", VIT, init_from="timm-pretrained")
    card = export(run, tmp_path / "b.safetensors", to="safetensors").card
    assert card.began == f"timm's own weights, licence: {timm.get_pretrained_cfg('test_vit').license}"
    assert card.licence == "not stated"
