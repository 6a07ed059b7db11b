import json

import pytest
import torch
from tiny import flat

import diptych
from diptych.api import learning
from diptych.distributed import World
from diptych.errors import ConfigError
from diptych.frozen import load
from diptych.training.fit import build_network

SMALL = {"method": "patches", "backbone": "patches:8", "image_size": 16, "device": "cpu"}


def test_it_is_fitted_to_all_pictures_once_and_the_same_again(tmp_path):
    data = flat(tmp_path / "data", 16)
    result = diptych.pretrain(data, tmp_path / "run", **SMALL)
    assert (result.status, result.steps, result.loss, result.warnings) == ("finished", 0, None, [])
    diptych.pretrain(data, tmp_path / "again", **SMALL)
    ours, again = (load(tmp_path / name, "cpu").module.state_dict() for name in ("run", "again"))
    assert ours.keys() == again.keys() and all(torch.equal(ours[key], again[key]) for key in ours)
    diptych.pretrain(data, tmp_path / "other", seed=1, **SMALL)
    assert not torch.equal(load(tmp_path / "other", "cpu").module.filters, ours["filters"])
    assert json.loads((tmp_path / "run" / "run.json").read_text())["result"]["loss"] is None


def test_it_refuses_several_processes(tmp_path):
    asked = learning.order("patches", flat(tmp_path / "data"), None, {"backbone": "patches:8", "image_size": 16})
    with pytest.raises(ConfigError, match="patches runs in one process: start it without torchrun"):
        build_network(asked.config, World(rank=0, size=2))
