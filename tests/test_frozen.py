import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from diptych.backbones.feature_choice import FeatureChoice, features_of
from diptych.backbones.pyramid import pyramid
from diptych.data.decoding.decode import BadPicture, fit
from diptych.errors import ConfigError, DataError, RunFolderError
from diptych.frozen import (
    BackboneCard,
    Preprocessing,
    initial_backbone,
    load,
    load_initial,
    prepared,
    random_twin,
    save_backbone,
    save_weights,
    weights_digest,
)
from diptych.runs import RunFolder, write_json

SIZE, SEED = 16, 7
PREPROCESSING = Preprocessing(image_size=SIZE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


def pixels(seed=0, height=20, width=24):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def trained(name="resnet20v2"):
    """The network that begins with ``SEED``, its weights and its running statistics moved as training moves them."""
    module, width, _ = initial_backbone(name, SIZE, SEED)
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=draws)
        module.train()(torch.randn(8, 3, SIZE, SIZE, generator=draws))
    return module, width


def make_run(path, name="resnet20v2", init_from=None):
    run = RunFolder.create(path)
    module, width = trained(name)
    card = BackboneCard(
        schema_version=1,
        backbone=name,
        num_features=width,
        seed=SEED,
        preprocessing=PREPROCESSING,
        init_from=init_from,
    )
    save_backbone(run, module, card)
    if init_from:
        save_weights(run.initial, initial_backbone(name, SIZE, SEED + 1)[0].state_dict())
    write_json(run.config, {})
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def backbone(run):
    return load(run, "cpu")


def images(count=7):
    return torch.from_numpy(np.stack([pixels(seed, SIZE, SIZE).transpose(2, 0, 1) for seed in range(count)]))


def same_weights(module, other):
    one, two = module.state_dict(), other.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def refusal(call, *arguments):
    with pytest.raises((DataError, RunFolderError)) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["resnet20v2", "resnet20v2-nofinal", "timm:resnet18"])
def test_what_was_saved_is_loaded(tmp_path, name):
    loaded = load(make_run(tmp_path / "run", name), "cpu")
    module, width = trained(name)
    assert same_weights(loaded.module, module)
    assert loaded.num_features == width and loaded.preprocessing == PREPROCESSING
    assert not loaded.module.training and not any(p.requires_grad for p in loaded.module.parameters())


def test_features_are_the_networks_on_normalised_pictures(backbone):
    pictures = images()
    mean, std = (torch.tensor(values)[:, None, None] for values in (PREPROCESSING.mean, PREPROCESSING.std))
    with torch.no_grad():
        wanted = trained()[0].eval()((pictures / 255 - mean) / std)
    found = backbone.embed(pictures)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert found.shape == (7, 256) and found.dtype == torch.float32 and found.device.type == "cpu"


def test_files_pillow_pictures_arrays_and_tensors_agree(backbone, tmp_path):
    arrays = [pixels(0, 20, 24), pixels(1, 40, 31), pixels(2, SIZE, SIZE)]
    files = [tmp_path / f"{number}.png" for number in range(len(arrays))]
    for array, file in zip(arrays, files, strict=True):
        Image.fromarray(array).save(file)
    fitted = torch.from_numpy(np.stack([fit(array.transpose(2, 0, 1), SIZE) for array in arrays]))
    wanted = backbone.embed(fitted)
    assert (functional.pdist(wanted) > 0.1).all()
    assert torch.equal(backbone.embed(files), wanted)
    assert torch.equal(backbone.embed([str(file) for file in files]), wanted)
    assert torch.equal(backbone.embed([Image.open(file) for file in files]), wanted)
    assert torch.equal(backbone.embed(arrays), wanted)
    assert torch.equal(backbone.embed([files[0], Image.fromarray(arrays[1]), arrays[2]]), wanted)


def test_gray_and_palette_pictures_are_embedded_as_their_files_are(backbone, tmp_path):
    picture = Image.fromarray(pixels())
    for number, kind in enumerate([picture.convert("L"), picture.quantize(16)]):
        kind.save(tmp_path / f"{number}.png")
        assert torch.equal(backbone.embed([kind]), backbone.embed([tmp_path / f"{number}.png"]))


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_features_do_not_depend_on_the_batch_size(backbone, batch_size):
    pictures = images()
    torch.testing.assert_close(backbone.embed(pictures, batch_size), backbone.embed(pictures), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (torch.zeros(2, 3, SIZE, SIZE), "float32 (2, 3, 16, 16)"),
        (torch.zeros(3, SIZE, SIZE, dtype=torch.uint8), "uint8 (3, 16, 16)"),
        (torch.zeros(2, 3, SIZE, 20, dtype=torch.uint8), "uint8 (2, 3, 16, 20)"),
        (torch.zeros(2, 1, SIZE, SIZE, dtype=torch.uint8), "uint8 (2, 1, 16, 16)"),
        (torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8), "uint8 (2, 16, 16, 3)"),
    ],
)
def test_a_tensor_of_another_shape_or_type_is_refused(backbone, wrong, told):
    said = refusal(backbone.embed, wrong)
    assert "takes uint8 pictures (N, 3, 16, 16)" in said and said.endswith(f"not {told}")


def test_no_pictures_give_no_features(backbone):
    for nothing in ([], images()[:0]):
        assert backbone.embed(nothing).shape == (0, 256)


CHOICES = [
    FeatureChoice(),
    *(FeatureChoice(kind=kind) for kind in ("multicrop", "grid")),
    FeatureChoice(layer="group1"),
]


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: f"{choice.kind}-{choice.layer}")
def test_chosen_features_are_those_of_each_prepared_picture(backbone, choice):
    found = backbone.embed(images(), 3, choice)
    with torch.no_grad():
        values = prepared(images(), PREPROCESSING, torch.device("cpu"))
        wanted = torch.cat([features_of(backbone.module, value[None], choice) for value in values])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert found.dtype == torch.float32 and found.device.type == "cpu"


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: f"{choice.kind}-{choice.layer}")
def test_the_width_is_known_before_anything_is_embedded(backbone, choice):
    widths = {"pooled": 256 if choice.layer is None else 64, "multicrop": 256, "grid": 1024}
    assert backbone.width(choice) == widths[choice.kind] == backbone.embed(images(2), features=choice).shape[1]
    assert backbone.embed([], features=choice).shape == (0, widths[choice.kind])


def test_features_that_a_network_has_not_are_refused_before_anything_is_embedded(backbone):
    for call in (backbone.width, lambda choice: backbone.embed(images(), features=choice)):
        with pytest.raises(ConfigError, match="no patch tokens: choose pooled, multicrop or grid"):
            call(FeatureChoice(kind="tokens"))


def test_a_file_that_is_no_picture_is_named(backbone, tmp_path):
    (tmp_path / "notes.jpg").write_text("no picture")
    with pytest.raises(BadPicture, match="notes.jpg: not a picture"):
        backbone.embed([pixels(), tmp_path / "notes.jpg"])


def test_the_random_twin_has_the_weights_that_training_began_with(run, backbone):
    twin = random_twin(run, "cpu")
    assert same_weights(twin.module, initial_backbone("resnet20v2", SIZE, SEED)[0])
    assert not same_weights(twin.module, initial_backbone("resnet20v2", SIZE, SEED + 1)[0])
    assert not same_weights(twin.module, backbone.module)
    assert twin.preprocessing == backbone.preprocessing and not twin.module.training


def test_initial_weights_belong_to_the_seed_and_leave_the_global_generator_alone():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = initial_backbone("resnet20v2", SIZE, SEED)[0]
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert same_weights(first, initial_backbone("resnet20v2", SIZE, SEED)[0])


def test_a_run_that_began_at_random_has_no_other_beginning(run, backbone):
    assert backbone.init_from is None and load_initial(run, "cpu") is None


def test_the_weights_that_training_began_with_are_loaded_beside_the_random_ones(tmp_path):
    run = make_run(tmp_path / "run", init_from="w.safetensors")
    began = load_initial(run, "cpu")
    assert same_weights(began.module, initial_backbone("resnet20v2", SIZE, SEED + 1)[0])
    assert same_weights(random_twin(run, "cpu").module, initial_backbone("resnet20v2", SIZE, SEED)[0])
    assert began.init_from == load(run, "cpu").init_from == "w.safetensors"
    assert began.preprocessing == PREPROCESSING and not began.module.training


def test_a_card_of_before_there_was_a_choice_is_read(tmp_path):
    run = make_run(tmp_path / "run")
    card = json.loads((run / "backbone.json").read_text())
    assert card.pop("init_from") is None
    write_json(run / "backbone.json", card)
    assert load_initial(run, "cpu") is None and load(run, "cpu").num_features == 256


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"x")])
def test_a_beginning_that_is_lost_or_damaged_is_refused(tmp_path, damage):
    run = make_run(tmp_path / "run", init_from="w.safetensors")
    damage(run / "initial.safetensors")
    said = refusal(load_initial, run)
    assert f"{run}/initial.safetensors is damaged" in said and "put it back, or pretrain again" in said


@pytest.mark.parametrize("keep", [0, 100, -7])
def test_weights_cut_short_are_refused(tmp_path, keep):
    run = make_run(tmp_path / "run")
    weights = run / "backbone.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    said = refusal(load, run)
    assert str(weights) in said and "damaged" in said and f"`diptych pretrain --resume {run}`" in said


def test_weights_of_another_network_are_refused(tmp_path):
    run, other = make_run(tmp_path / "run"), make_run(tmp_path / "other", "resnet20v2-nofinal")
    (other / "backbone.safetensors").rename(run / "backbone.safetensors")
    assert "belongs to another network" in refusal(load, run)


def test_lost_weights_are_refused(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "backbone.safetensors").unlink()
    assert f"`diptych pretrain --resume {run}`" in refusal(load, run)


@pytest.mark.parametrize("call", [load, load_initial, random_twin])
def test_a_run_that_has_not_finished_is_told_how_to_go_on(tmp_path, call):
    run = make_run(tmp_path / "run")
    (run / "backbone.json").unlink()
    said = refusal(call, run)
    assert "holds no backbone yet" in said and f"`diptych pretrain --resume {run}`" in said


@pytest.mark.parametrize("call", [load, load_initial, random_twin])
def test_no_run_at_all(tmp_path, call):
    assert "there is no run folder" in refusal(call, tmp_path / "none")


def test_a_digest_tells_weights_apart():
    module, _ = trained()
    digest = weights_digest(module)
    assert len(digest) == 64 and digest == weights_digest(module.to(memory_format=torch.channels_last))
    buffer = next(name for name, _ in module.named_buffers() if name.endswith("running_var"))
    for name in (next(iter(module.state_dict())), buffer):
        before = module.state_dict()[name].clone()
        module.state_dict()[name][0] += 1e-3
        assert weights_digest(module) != digest
        module.state_dict()[name].copy_(before)
    assert weights_digest(module) == digest
    assert weights_digest(initial_backbone("resnet20v2", SIZE, SEED)[0]) != digest
    assert weights_digest(torch.nn.ReLU()) != weights_digest(torch.nn.Linear(1, 1))


def test_features_are_maps_of_prepared_pictures(tmp_path):
    backbone = load(make_run(tmp_path / "run"), "cpu")
    pictures = torch.randint(0, 256, (5, 3, 24, 16), dtype=torch.uint8)
    found = backbone.features(pictures, batch_size=2)
    expected = pyramid(backbone.module, prepared(pictures, backbone.preprocessing, torch.device("cpu")))
    assert found.strides == (1, 1, 2, 4) and found.names == expected.names
    for ours, theirs in zip(found.maps, expected.maps, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)  # batches of other sizes add in another order
    gray = [np.zeros((40, 30, 3), np.uint8)]
    own = backbone.features(gray)
    assert [cells.shape[2] for cells in own.maps] == [16, 16, 8, 4]
    torch.testing.assert_close(own.maps[-1].mean(dim=(2, 3)), backbone.embed(gray), atol=1e-4, rtol=1e-3)
    with pytest.raises(DataError, match=r"takes uint8 pictures \(N, 3, H, W\) or a list of files, not float32"):
        backbone.features(pictures.float())
    with pytest.raises(DataError, match="multiples of 4 px"):
        backbone.features(pictures[..., :15])
    with pytest.raises(DataError, match="one picture or more"):
        backbone.features([])
    with pytest.raises(DataError, match=r"a list of files: type features\(\['a.png'\]\)"):
        backbone.features("a.png")
    with pytest.raises(DataError, match=r"takes uint8 pictures .* not uint8 \(3, 3, 16\)"):
        backbone.features(pictures[0, :, :3, :16])
