"""Weights are read from real files: of a run, of safetensors, and of timm, whose cache holds what a download leaves."""

import hashlib
import math
import re
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from tiny import BIN, config, flat

import diptych
from diptych.config import with_settings
from diptych.data.stores.digests import read_digests, write_digests
from diptych.errors import ConfigError, UserError
from diptych.frozen import BackboneCard, Preprocessing, initial_backbone, save_backbone
from diptych.methods.byol import BYOLConfig
from diptych.runs import RunFolder, write_json
from diptych.training.run import build_method
from diptych.training.warm import normalised_anew, read_start, settings_of

OTHER_SEED = 5
"""Of the weights that a run begins with; the runs themselves have seed 0."""


def weights(name="resnet20v2", size=16, channels=3):
    return dict(initial_backbone(name, size, OTHER_SEED, channels)[0].state_dict())


def make_run(path, name="resnet20v2", size=16, channels=3, seen=(1, 2), init_from=None):
    """A finished run that has learned from the pictures with the hashes ``seen``."""
    run = RunFolder.create(path)
    module, width, _ = initial_backbone(name, size, OTHER_SEED, channels)
    made = Preprocessing(image_size=size, channels=channels, mean=(0.5,) * channels, std=(0.25,) * channels)
    card = BackboneCard(
        schema_version=1, backbone=name, num_features=width, seed=OTHER_SEED, preprocessing=made, init_from=init_from
    )
    save_backbone(run, module, card)
    write_digests(run, np.array(seen, dtype=np.uint64))
    write_json(run.config, {})
    return path


def write(path, tensors):
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    return path


def asking(source, **settings):
    return config("pictures", init_from=str(source), **settings)


def refusal(source, **settings):
    with pytest.raises(UserError) as caught:
        read_start(asking(source, **settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "first")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("files") / "w.safetensors", weights())


def test_without_the_flag_training_begins_at_random():
    assert read_start(config("pictures")) is None


# The weights of a run


def test_the_weights_of_a_run_are_taken_as_they_are(run):
    start = read_start(asking(run))
    written = (run / "backbone.safetensors").read_bytes()
    assert same(start.weights, weights()) and start.notes == ()
    assert start.described() == {
        "from": str(run),
        "file": str(run / "backbone.safetensors"),
        "sha256": hashlib.sha256(written).hexdigest(),
        "notes": [],
    }


def test_the_backbone_and_its_momentum_encoder_begin_with_them_and_the_heads_at_random(run):
    asked = replace(asking(run), method=BYOLConfig(projector_width=16, predictor_width=8))
    warm, cold = (build_method(asked, given)[0].state_dict() for given in (read_start(asked).weights, None))
    begun = weights()
    assert all(torch.equal(warm[f"backbone.{key}"], value) for key, value in begun.items())
    (target,) = {key.removesuffix("stem.0.weight") for key in warm if key.endswith(".stem.0.weight")} - {"backbone."}
    assert all(torch.equal(warm[f"{target}{key}"], value) for key, value in begun.items())
    heads = [key for key in warm if not key.startswith(("backbone.", target))]
    assert heads and all(torch.equal(warm[key], cold[key]) for key in heads)
    assert not torch.equal(warm["backbone.stem.0.weight"], cold["backbone.stem.0.weight"])


def test_a_run_with_another_backbone_or_other_channels_is_refused(run):
    assert refusal(run, backbone="resnet20v2-nofinal") == (
        f"--init-from {run} was trained with --backbone resnet20v2, not resnet20v2-nofinal: type --backbone resnet20v2"
    )
    assert refusal(run, channels=1).endswith("was trained with --channels 3, not 1: type --channels 3")


def test_a_convolutional_network_goes_on_with_pictures_of_another_size_and_that_is_said(run):
    start = read_start(asking(run, image_size=24))
    assert start.seen is None  # digests of other pixels: what was seen is not known
    assert same(start.weights, weights())
    assert start.notes == (f"{run} has learned from pictures of 16 px, not 24 px",)


def test_a_run_of_small_pictures_has_no_first_convolution_for_large_ones(tmp_path):
    run = make_run(tmp_path / "run", "timm:resnet18", 32)
    said = refusal(run, backbone="timm:resnet18", image_size=80)
    assert "conv1.weight is (64, 3, 3, 3), not (64, 3, 7, 7); type --image-size 32, as" in said


def test_folders_that_hold_no_finished_run_are_refused(tmp_path):
    assert "is not a run folder of diptych" in refusal(tmp_path)
    (make_run(tmp_path / "run") / "backbone.json").unlink()
    assert "the run has not finished; go on with `diptych pretrain --resume" in refusal(tmp_path / "run")


def test_a_damaged_backbone_is_refused(tmp_path):
    path = make_run(tmp_path / "run") / "backbone.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert f"{path} is damaged or no safetensors file" in refusal(tmp_path / "run")


def test_what_the_source_has_seen_is_handed_on_from_run_to_run(tmp_path):
    first, second = make_run(tmp_path / "1"), make_run(tmp_path / "2", seen=(3,), init_from=str(tmp_path / "1"))
    read_start(asking(first)).keep(RunFolder(second))
    assert sorted(read_start(asking(second)).seen) == sorted(read_digests(RunFolder(second))) == [1, 2, 3]
    assert same(load_file(second / "initial.safetensors"), weights())


def test_what_nobody_knows_of_stays_unknown(tmp_path, file):
    third = make_run(tmp_path / "3", init_from=str(file))
    start = read_start(asking(file))
    assert start.seen is None
    start.keep(RunFolder(third))
    assert not RunFolder(third).initial_pictures.exists()
    assert read_start(asking(third)).seen is None


# A file


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.", "module.encoder_q."])
def test_a_file_may_put_one_prefix_before_every_key(tmp_path, prefix):
    path = write(tmp_path / "w.safetensors", {f"{prefix}{key}": value for key, value in weights().items()})
    start = read_start(asking(path))
    assert same(start.weights, weights())
    assert start.notes == () and start.seen is None and start.normalised == {}
    assert start.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() and start.file == str(path)


def test_of_our_own_checkpoint_the_backbone_is_taken_and_not_its_momentum_encoder(tmp_path):
    both = {f"backbone.{key}": value for key, value in weights().items()}
    path = write(tmp_path / "w.safetensors", both | {f"target.0.{key}": torch.ones(()) for key in weights()})
    start = read_start(asking(path))
    assert same(start.weights, weights())
    assert re.fullmatch(
        r"left out of .*, because the backbone has none of it: target.*, .*, .* and 119 more", *start.notes
    )


def test_a_file_that_holds_the_network_twice_is_refused(tmp_path):
    twice = {f"{name}.{key}": torch.ones(()) for name in ("teacher", "student") for key in weights()}
    assert "holds resnet20v2 2 times (" in refusal(write(tmp_path / "w.safetensors", twice))


def test_a_classifier_is_left_out_and_that_is_said(tmp_path):
    whole = timm.create_model("test_resnet", num_classes=3)
    path = write(tmp_path / "w.safetensors", {f"module.{key}": value for key, value in whole.state_dict().items()})
    start = read_start(asking(path, backbone="timm:test_resnet", image_size=80))
    assert same(start.weights, {k: v for k, v in whole.state_dict().items() if not k.startswith("fc.")})
    assert start.notes == (
        f"left out of {path}, because the backbone has none of it: module.fc.bias, module.fc.weight",
    )


def test_a_classifier_inside_a_part_of_the_network_is_left_out_too(tmp_path):
    whole = timm.create_model("test_convnext", num_classes=3)
    path = write(tmp_path / "w.safetensors", whole.state_dict())
    start = read_start(asking(path, backbone="timm:test_convnext", image_size=80))
    assert "head.norm.weight" in start.weights and "head.fc.weight" not in start.weights
    assert start.notes[0].endswith("none of it: head.fc.bias, head.fc.weight")


def test_missing_weights_are_refused_by_name_with_their_number(tmp_path):
    some = {key: value for key, value in weights().items() if not key.startswith("final")}
    said = refusal(write(tmp_path / "w.safetensors", some))
    assert (
        "lacks 4 of the 102 weights of resnet20v2 (final.0.weight, final.0.bias, final.0.running_mean and 1 more)"
        in said
    )
    assert said.endswith("choose the --backbone that it belongs to")
    assert "lacks 102 of the 102" in refusal(write(tmp_path / "w.safetensors", {"x": torch.ones(2)}))


def test_a_larger_network_of_the_same_kind_is_refused(tmp_path):
    deep = timm.create_model("resnet34", num_classes=0).state_dict()
    shallow = initial_backbone("timm:resnet18", 80, 0)[0].state_dict()
    assert all(deep[key].shape == shallow[key].shape for key in shallow)  # nothing else would tell
    said = refusal(write(tmp_path / "w.safetensors", deep), backbone="timm:resnet18", image_size=80)
    assert re.search(r"holds \d+ weights that timm:resnet18 has not \(layer\d\.\d.*: choose the --backbone", said)


def test_weights_of_another_shape_are_refused(tmp_path):
    said = refusal(write(tmp_path / "w.safetensors", weights(channels=4)))
    assert (
        "does not fit resnet20v2 for 16 px pictures of 3 channels: stem.0.weight is (16, 4, 3, 3), not (16, 3, 3, 3)"
        in said
    )
    assert said.endswith("; give the --channels and --image-size that they were trained for")


def test_half_precision_and_batch_norms_without_a_count_are_taken(tmp_path):
    halved = {key: value.half() for key, value in weights().items() if not key.endswith("num_batches_tracked")}
    start = read_start(asking(write(tmp_path / "w.safetensors", halved)))
    build_method(asking(tmp_path), start.weights)
    assert start.weights["stem.0.weight"].dtype == torch.float32
    torch.testing.assert_close(start.weights["stem.0.weight"], weights()["stem.0.weight"], atol=1e-3, rtol=1e-3)
    assert start.weights["stem.1.num_batches_tracked"] == 0


@pytest.mark.parametrize("content", [b"", b"no safetensors", b"\x80\x02}q\x00."])
def test_a_file_that_is_none_is_refused(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    assert "is damaged or no safetensors file" in refusal(path)


@pytest.mark.parametrize(
    ("spoilt", "told"),
    [
        (lambda weight: (weight * 100).to(torch.int8), "holds int8 values, no weights"),
        (lambda weight: weight * math.nan, "holds numbers that are not finite, no weights"),
    ],
)
def test_numbers_that_are_no_weights_are_refused(tmp_path, spoilt, told):
    found = weights()
    said = refusal(write(tmp_path / "w.safetensors", found | {"stem.0.weight": spoilt(found["stem.0.weight"])}))
    assert f"stem.0.weight {told}" in said


def test_what_patches_made_is_refused(tmp_path):
    diptych.pretrain(flat(tmp_path / "p"), tmp_path / "run", method="patches", backbone="patches:8", image_size=16)
    with pytest.raises(ConfigError, match="made by patches, which has no weights to train"):
        diptych.pretrain(tmp_path / "p", tmp_path / "next", init_from=str(tmp_path / "run"))


def test_nothing_there_is_told_what_there_may_be(tmp_path):
    assert "there is no " in refusal(tmp_path / ("n" * 400))
    said = refusal(tmp_path / "none.safetensors")
    assert said.endswith("none.safetensors: --init-from takes a run folder, a .safetensors file, or timm-pretrained")


@pytest.mark.parametrize("ending", ["pt", "pth", "bin", "ckpt"])
def test_a_pickle_is_not_read(tmp_path, ending):
    path = tmp_path / f"w.{ending}"
    path.write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    said = refusal(path)
    assert f"{path} is no .safetensors file, and other formats can run code when they are read" in said
    assert said.endswith(f"--init-from {tmp_path}/w.safetensors")


def test_what_is_to_be_typed_for_a_pickle_works(tmp_path):
    path = tmp_path / "it's mine.pth"
    torch.save(weights(), path)
    typed = re.search("`python (.*)`", refusal(path))[1]
    subprocess.run(f"{BIN}/python {typed}", shell=True, check=True)
    assert same(read_start(asking(path.with_suffix(".safetensors"))).weights, weights())


# Pictures of another size


def test_a_stem_for_large_pictures_is_left_for_a_small_one_and_that_is_said(tmp_path):
    large, small = (initial_backbone("timm:resnet18", size, seed)[0].state_dict() for size, seed in ((80, 5), (16, 0)))
    path = write(tmp_path / "w.safetensors", large)
    start = read_start(asking(path, backbone="timm:resnet18"))
    assert same(start.weights, large | {"conv1.weight": small["conv1.weight"]})
    assert start.notes == (f"the first convolution begins at random: pictures of 16 px have a smaller one than {path}",)


def test_position_embeddings_are_resampled_as_timm_does(tmp_path):
    whole = timm.create_model("test_vit", num_classes=0)
    path = write(tmp_path / "w.safetensors", whole.state_dict())
    start = read_start(asking(path, backbone="timm:test_vit", image_size=64))
    wanted = timm.create_model(
        "test_vit", pretrained=True, num_classes=0, img_size=64, pretrained_cfg_overlay={"file": str(path)}
    ).state_dict()
    assert whole.pos_embed.shape[1] == 101 and wanted["pos_embed"].shape[1] == 17
    assert same(start.weights, wanted)
    assert start.notes == (f"the position embeddings of {path} are resampled to 64 px",)
    build_method(asking(path, backbone="timm:test_vit", image_size=64), start.weights)


@pytest.mark.parametrize("shape", [(1, 1, 64), (1, 12, 64), (1, 101, 8), (101,)])
def test_position_embeddings_that_cannot_be_resampled_are_refused(tmp_path, shape):
    odd = timm.create_model("test_vit", num_classes=0).state_dict() | {"pos_embed": torch.ones(shape)}
    said = refusal(write(tmp_path / "w.safetensors", odd), backbone="timm:test_vit", image_size=64)
    assert re.search(r"pos_embed is .*, not \(1, 17, 64\)", said)


# timm's own


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The cache of downloads, on a machine without a network; returns a function that puts a model's weights there."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(model):
        found = timm.create_model(model).state_dict()
        repository, revision = (
            cache / f"models--{timm.get_pretrained_cfg(model).hf_hub_id.replace('/', '--')}",
            "0" * 40,
        )
        for folder in (repository / "refs", repository / "snapshots" / revision):
            folder.mkdir(parents=True)
        (repository / "refs" / "main").write_text(revision)
        write(repository / "snapshots" / revision / "model.safetensors", found)
        return found

    return put


def test_timms_own_weights_are_taken_without_their_classifier(hub):
    found = hub("test_resnet")
    before = torch.random.get_rng_state()
    start = read_start(asking("timm-pretrained", backbone="timm:test_resnet", image_size=80))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert same(start.weights, {key: value for key, value in found.items() if not key.startswith("fc.")})
    assert (start.file, start.notes, start.seen) == ("timm/test_resnet.r160_in1k", (), None)
    build_method(asking("timm-pretrained", backbone="timm:test_resnet", image_size=80), start.weights)


def test_the_hash_of_timms_weights_is_that_of_the_file_in_the_run(tmp_path, hub):
    hub("test_resnet")
    start = read_start(asking("timm-pretrained", backbone="timm:test_resnet", image_size=80))
    run = RunFolder.create(tmp_path / "run")
    start.keep(run)
    assert start.sha256 == hashlib.sha256(run.initial.read_bytes()).hexdigest()


def test_timm_fits_its_weights_to_the_channels(hub):
    found = hub("test_resnet")
    start = read_start(asking("timm-pretrained", backbone="timm:test_resnet", image_size=80, channels=1))
    torch.testing.assert_close(start.weights["conv1.0.weight"], found["conv1.0.weight"].sum(dim=1, keepdim=True))
    assert start.notes == ("timm fits the first layer of timm/test_resnet.r160_in1k from 3 channels to 1",)
    assert start.normalised == {}


def test_small_pictures_lose_timms_first_convolution(hub):
    found = hub("resnet18")
    start = read_start(asking("timm-pretrained", backbone="timm:resnet18"))
    small = initial_backbone("timm:resnet18", 16, 0)[0].state_dict()
    assert all(torch.equal(value, found[key]) for key, value in start.weights.items() if key != "conv1.weight")
    assert torch.equal(start.weights["conv1.weight"], small["conv1.weight"])
    assert start.notes[0].startswith("the first convolution begins at random: pictures of 16 px")


def test_timms_position_embeddings_are_resampled(hub):
    hub("test_vit")
    settings = {"backbone": "timm:test_vit", "image_size": 64}
    start = read_start(asking("timm-pretrained", **settings))
    wanted = timm.create_model("test_vit", pretrained=True, num_classes=0, img_size=64).state_dict()
    assert same(start.weights, wanted) and "resampled to 64 px" in start.notes[0]


def test_without_a_network_one_line_says_what_to_type_instead(hub):
    said = refusal("timm-pretrained", backbone="timm:test_vit", image_size=64)
    assert said.startswith("timm's weights for test_vit cannot be had (")
    assert said.endswith("get them as a file elsewhere and type --init-from FILE.safetensors")


def test_networks_for_which_timm_has_no_weights_are_refused(hub):
    assert "timm has no weights for resnet20v2: choose a --backbone timm:MODEL" in refusal("timm-pretrained")
    said = refusal("timm-pretrained", backbone="timm:test_vit4", image_size=64)
    assert (
        said == "timm has no weights for test_vit4: choose another --backbone, or leave out --init-from timm-pretrained"
    )
    assert "timm has no model 'resnet1'" in refusal("timm-pretrained", backbone="timm:resnet1")


# What a recipe shares, and what it says


def test_a_recipe_shares_what_a_run_was_trained_with(tmp_path, file):
    run = make_run(tmp_path / "run", "resnet20v2-nofinal", size=24, channels=2)
    shared = settings_of(str(run))
    assert shared == {"backbone": "resnet20v2-nofinal", "image_size": 24, "channels": 2}
    assert read_start(with_settings(asking(run), shared)).notes == ()
    assert settings_of(None) == settings_of("timm-pretrained") == settings_of(str(file)) == settings_of("nowhere") == {}


def test_other_numbers_to_normalise_by_are_said_with_what_to_type(run):
    asked = asking(run)
    (choice,) = normalised_anew(read_start(asked), asked)
    assert choice.what == "--mean 0.485 0.456 0.406 --std 0.229 0.224 0.225"
    assert choice.why == (
        f"what this run normalises by; the weights of {run} were trained with --mean 0.5 0.5 0.5 --std 0.25 0.25 0.25: "
        "type that to keep it"
    )
    alike = with_settings(asked, {"mean": (0.5, 0.5, 0.50001), "std": (0.25, 0.25, 0.25)})
    assert normalised_anew(read_start(alike), alike) == []


def test_timms_numbers_are_said_where_they_are_not_imagenets(hub):
    hub("test_vit"), hub("resnet18")
    other = asking("timm-pretrained", backbone="timm:test_vit", image_size=64)
    (choice,) = normalised_anew(read_start(other), other)
    assert "were trained with --mean 0.5 0.5 0.5 --std 0.5 0.5 0.5" in choice.why
    usual = asking("timm-pretrained", backbone="timm:resnet18", image_size=80)
    assert normalised_anew(read_start(usual), usual) == []


def test_a_file_of_which_nothing_is_known_says_nothing(file):
    assert normalised_anew(read_start(asking(file)), asking(file)) == []
