"""What a run may be asked to compute otherwise: each leaves what it learns the same, to rounding."""

import pytest
import torch
from safetensors.torch import load_file
from tiny import config, flat

from diptych import checkpoint
from diptych.errors import RunFolderError
from diptych.training.build import backbone_of
from diptych.training.order import Order
from diptych.training.run import pretrain, resume

SMALL = {"backbone": "timm:test_resnet.r160_in1k", "image_size": 32, "batch_size": 4, "epochs": 2, "lr": 0.01}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return flat(tmp_path_factory.mktemp("pictures"), 8)


@pytest.fixture(scope="module")
def plain(pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("plain") / "run"
    pretrain(Order(config=config(pictures, **SMALL), recipe="none"), out, device="cpu")
    return load_file(out / "backbone.safetensors")


@pytest.mark.parametrize(
    ("asked", "tolerance"),
    [({"compile": True}, 1e-4), ({"checkpoint_activations": True}, 1e-5)],
)
def test_how_it_is_computed_changes_only_rounding(pictures, plain, tmp_path, asked, tolerance):
    order = Order(config=config(pictures, **SMALL | asked), recipe="none")
    assert pretrain(order, tmp_path / "run", device="cpu").status == "finished"
    found = load_file(tmp_path / "run" / "backbone.safetensors")
    assert found.keys() == plain.keys()
    worst = max(
        float((found[key] - plain[key]).abs().max()) / max(1.0, float(plain[key].abs().max()))
        for key in plain
        if not key.endswith("num_batches_tracked")
    )
    assert worst < tolerance


def test_the_scale_of_fp16_goes_on_from_a_checkpoint(pictures, tmp_path):
    order = Order(config=config(pictures, **SMALL | {"precision": "fp16"}), recipe="none")
    pretrain(order, tmp_path / "run", device="cpu")
    found = load_file(tmp_path / "run" / "backbone.safetensors")
    assert all(tensor.isfinite().all() for tensor in found.values())
    assert checkpoint.load(tmp_path / "run" / "checkpoints" / "last").state["scaler"]["scale"] > 0
    assert resume(tmp_path / "run", device="cpu").status == "finished"


def test_a_shortened_gradient_changes_a_run(pictures, plain, tmp_path):
    pretrain(
        Order(config=config(pictures, **SMALL | {"clip_norm": 1e-3}), recipe="none"), tmp_path / "run", device="cpu"
    )
    found = load_file(tmp_path / "run" / "backbone.safetensors")
    assert not all(torch.equal(found[key], plain[key]) for key in plain)


def test_a_checkpoint_that_lacks_what_a_run_goes_on_with_is_refused(pictures, tmp_path):
    order = Order(config=config(pictures, **SMALL | {"epochs": 1}), recipe="none")
    pretrain(order, tmp_path / "run", device="cpu")
    folder = tmp_path / "run" / "checkpoints"
    point = checkpoint.load(folder / "last")
    checkpoint.save(folder, point.weights, {"optimizer": {}}, point.progress)
    with pytest.raises(
        RunFolderError, match="holds no 'evaluation', so no run goes on from it: start with --overwrite"
    ):
        backbone_of(checkpoint.load(folder / "last"), order.config)
