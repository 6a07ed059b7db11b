"""Runs that go wrong on purpose: stopped, or brought back to where they were healthy with one thing changed."""

import json
from dataclasses import replace

import pytest
import tiny
import torch
from safetensors.torch import load_file
from tiny import config, flat, lines

from diptych import checkpoint
from diptych.progress import Terminal
from diptych.runs import RunFolder
from diptych.training.card import saved_config
from diptych.training.order import Order
from diptych.training.recover import with_recovery
from diptych.training.run import pretrain, resume

FAR_TOO_HIGH = {"optimizer": "adamw", "lr": 16.0, "epochs": 8, "batch_size": 8, "weight_decay": 0.0}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return flat(tmp_path_factory.mktemp("pictures"), 32)


def asked(pictures, **settings):
    return Order(config=config(pictures, **FAR_TOO_HIGH | settings), recipe="none", command="diptych pretrain")


def test_a_run_is_stopped_and_leaves_no_backbone(pictures, tmp_path):
    result = pretrain(asked(pictures, on_collapse="stop"), tmp_path / "run", device="cpu")
    assert result.status == "collapsed" and result.steps < 32
    assert "diverging" in result.warnings[0] and "Try, one at a time" in result.warnings[0]
    assert not (tmp_path / "run" / "backbone.safetensors").exists()
    checkpoint.load(tmp_path / "run" / "checkpoints" / "last")


def test_without_being_asked_a_run_only_warns(pictures, tmp_path):
    result = pretrain(asked(pictures), tmp_path / "run", device="cpu")
    assert (result.status, result.steps) == ("finished", 32) and "diverging" in result.warnings[0]
    assert "Warning: This run is diverging" in (tmp_path / "run" / "log.txt").read_text()


def test_a_run_goes_back_and_on_with_a_change_until_it_is_healthy(pictures, tmp_path):
    run = RunFolder(tmp_path / "run")
    result = pretrain(asked(pictures, on_collapse="recover", recoveries=5), run.path, device="cpu")
    assert (result.status, result.steps) == ("finished", 32)
    done = run.read_card()["recoveries"]
    assert 1 <= len(done) <= 5 and done[0]["state"] == "diverging" and done[0]["evidence"]
    rate = 16.0
    for number, recovery in enumerate(done, 1):
        assert recovery["settings"]["lr"] == pytest.approx(rate / 10) and recovery["back_to"] < recovery["at"]
        rate /= 10
        lost = [record["step"] for record in lines(run.recovered) if record["recovery"] == number]
        assert lost == list(range(recovery["back_to"], recovery["at"] + 1))
    assert saved_config(run).optim.lr == pytest.approx(rate)
    assert [record["step"] for record in lines(run.metrics)] == list(range(32))
    assert f"Recovery {len(done)}: diverging at step" in run.log.read_text()
    assert all(tensor.isfinite().all() for tensor in load_file(run.backbone_weights).values())


def test_a_run_that_was_killed_after_a_recovery_goes_on_with_the_change(pictures, tmp_path):
    whole, run = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "run")
    order = asked(pictures, on_collapse="recover", recoveries=5)
    pretrain(order, whole.path, device="cpu")

    class Killed(Exception):
        pass

    class Killing(Terminal):
        def say(self, text):
            super().say(text)
            if text.startswith("Recovery 1:"):
                raise Killed

    with pytest.raises(Killed):
        pretrain(order, run.path, device="cpu", terminal=Killing(quiet=True))
    assert resume(run.path, device="cpu").status == "finished"
    assert run.read_card()["recoveries"] == whole.read_card()["recoveries"]
    assert run.backbone_weights.read_bytes() == whole.backbone_weights.read_bytes()


def test_recoveries_have_an_end(pictures, tmp_path):
    result = pretrain(asked(pictures, on_collapse="recover", recoveries=1, lr=1600.0), tmp_path / "run", device="cpu")
    assert result.status == "collapsed"
    assert len(RunFolder(tmp_path / "run").read_card()["recoveries"]) == 1


def test_another_method_goes_on_with_the_backbone_alone(pictures, tmp_path):
    """As after a recovery that changes the method: the checkpoint is SimSiam's, the run is VICReg's from there."""
    run = RunFolder(tmp_path / "run")
    order = Order(config=config(pictures, epochs=2, batch_size=8, on_collapse="recover"), recipe="none")
    pretrain(order, run.path, device="cpu")
    run.backbone_weights.unlink()
    point = checkpoint.load(run.checkpoints / "last")
    early = replace(point.progress, step=4)
    checkpoint.save(run.checkpoints, point.weights, point.state, early)
    settings = {"method": "vicreg", "projector_width": 16, "projector_dim": 16, "lr": 0.0001}
    card = run.read_card()
    card["recoveries"] = [{"back_to": 4, "settings": settings, "change": "another method"}]
    run.config.write_text(json.dumps(card))
    run.keep_metrics_before(4)
    changed = saved_config(run)
    assert changed == with_recovery(order.config, settings) and changed.method.name == "vicreg"
    assert changed.method.projector_width == 16 and changed.method.projector_layers == 3
    assert resume(run.path, device="cpu").status == "finished"
    left = load_file(run.backbone_weights)
    before = {key.removeprefix("backbone."): value for key, value in point.weights.items()}
    moved = sum(float((left[key] - before[key]).square().sum()) for key in left if left[key].is_floating_point())
    size = sum(float(left[key].square().sum()) for key in left if left[key].is_floating_point())
    assert 0 < moved < 0.1 * size
    assert tiny.lines(run.metrics)[-1]["step"] == 7
    assert not torch.equal(left["stem.0.weight"], before["stem.0.weight"])


def test_a_change_that_the_rest_of_the_configuration_forbids_is_not_made(pictures, tmp_path):
    """VICReg cannot compute a batch in portions: a run in portions is never given it, and stays readable."""
    order = asked(pictures, on_collapse="recover", recoveries=9, accumulate=2, lr=1e6)
    result = pretrain(order, tmp_path / "run", device="cpu")
    done = RunFolder(tmp_path / "run").read_card()["recoveries"]
    assert done and not any("method" in recovery["settings"] for recovery in done)
    assert result.status in ("finished", "collapsed") and saved_config(RunFolder(tmp_path / "run"))


def test_a_stopped_run_may_go_on_if_it_is_only_to_be_warned_about(pictures, tmp_path):
    order = asked(pictures, on_collapse="stop")
    stopped = pretrain(order, tmp_path / "run", device="cpu")
    again = resume(tmp_path / "run", device="cpu")
    assert (again.status, again.steps) == ("collapsed", stopped.steps)
    warned = replace(order.config, care=replace(order.config.care, on_collapse="warn"))
    assert resume(tmp_path / "run", config=warned, device="cpu").status == "finished"
    assert saved_config(RunFolder(tmp_path / "run")).care.on_collapse == "warn"
