"""Methods with state of their own (slow copies, queues, counters) go on from a checkpoint as if never stopped."""

import contextlib
import signal

import pytest
import tiny

import diptych
from diptych.config import with_settings
from diptych.methods import METHODS
from diptych.progress import Bar, Terminal
from diptych.training.config import RunConfig
from diptych.training.order import Order
from diptych.training.run import pretrain

STEPS, STOPPED = 9, 5
HEADS = {"projector_width": 16, "projector_dim": 8}
SETTINGS = {
    "simsiam": {"projector_layers": 2, "projector_width": 16, "predictor_width": 8},
    "fastsiam": {"projector_layers": 2, "projector_width": 16, "predictor_width": 8},
    "simclr": HEADS,
    "byol": HEADS | {"predictor_width": 8},
    "moco": HEADS | {"queue_size": 6},
    "swav": HEADS | {"prototypes": 6, "prototypes_frozen": 0.0, "queue_size": 6, "queue_from": 0.0},
    "barlow": HEADS,
    "vicreg": HEADS,
    "lejepa": HEADS | {"slices": 8},
    "dino": HEADS | {"prototypes": 6, "prototypes_frozen": 0.0, "ema_momentum": 0.9},
}
PICTURES = {"image_size": 16, "backbone": "resnet20v2", "batch_size": 4, "epochs": 3, "precision": "fp32"}


class Watched(Bar):
    """Stands for a person who presses Ctrl-C when the bar shows step 5."""

    def update(self, done, text=""):
        if done == STOPPED:
            signal.raise_signal(signal.SIGINT)


class Stopping(Terminal):
    @contextlib.contextmanager
    def bar(self, what, total, done=0):
        yield (Watched if what == "training" else Bar)(self, what, total, None)


def recorded(run):
    """Every metric of every step, but for what clocks say."""
    clocks = {"images_per_second", "wait_fraction", "seconds"}
    return [{k: v for k, v in record.items() if k not in clocks} for record in tiny.lines(run / "metrics.jsonl")]


def test_every_method_is_here():
    assert SETTINGS.keys() == METHODS.keys()


@pytest.mark.parametrize("name", SETTINGS)
def test_an_interrupted_run_ends_with_the_very_same_backbone_and_metrics(name, tmp_path):
    data = tiny.flat(tmp_path / "pictures", 12)
    config = with_settings(RunConfig(data=str(data), method=METHODS[name]()), PICTURES | SETTINGS[name])
    order, whole, run = Order(config=config, recipe="none"), tmp_path / "whole", tmp_path / "run"
    assert pretrain(order, whole, device="cpu").steps == STEPS
    stopped = pretrain(order, run, device="cpu", terminal=Stopping(quiet=True))
    assert (stopped.status, stopped.steps) == ("interrupted", STOPPED)
    assert not (run / "backbone.safetensors").exists()
    resumed = diptych.resume(run, device="cpu")
    assert (resumed.status, resumed.steps) == ("finished", STEPS)
    assert recorded(run) == recorded(whole)
    assert (run / "backbone.safetensors").read_bytes() == (whole / "backbone.safetensors").read_bytes()
