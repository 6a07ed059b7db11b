"""What every method's recipe does with any pictures on any machine."""

import json
from dataclasses import fields

import pytest
import torch
from test_recipes import EVERY, chosen, means, settings

from diptych.config import from_dict, to_dict
from diptych.data.decoding.pixels import PixelFormat
from diptych.recipes.book import FITTED, skeleton
from diptych.recipes.facts import Facts
from diptych.recipes.fitted import SMALL, USUAL
from diptych.training.config import RunConfig
from diptych.training.run import build_method
from diptych.views.policies import POLICIES

SOME = EVERY[::7]
TRAINED = [name for name in FITTED if name != "patches"]


def facts(count=10_000, side=32, pixels=None, gpu=False, bf16=True):
    return Facts(count=count, side=side, pixels=pixels or PixelFormat(), gpu=gpu, bf16=bf16)


@pytest.mark.parametrize("name", FITTED)
def test_it_comes_back_from_json_and_every_choice_is_what_it_holds(name):
    for seen in SOME:
        config, choices = FITTED[name]("x", seen)
        assert from_dict(RunConfig, json.loads(json.dumps(to_dict(config)))) == config
        assert config.method.name == name and config.pixels == seen.pixels
        values = settings(config)
        for flag, words in chosen(choices).items():
            assert means(words, values[flag]), (seen, flag, words, values[flag])
        assert len(chosen(choices)) == sum(choice.what.count("--") for choice in choices)


@pytest.mark.parametrize("name", TRAINED)
def test_it_asks_for_no_more_than_there_is(name):
    for seen in EVERY:
        config, _ = FITTED[name]("x", seen)
        batch, method = config.train.batch_size, settings(config)
        queue = method.get("queue_size", 0)
        assert batch <= seen.count and queue < seen.count, seen
        if name == "swav":
            assert method["prototypes"] <= max(2, batch + queue), seen
        assert config.views.local_views == 0 or config.views.local_size <= config.image_size // 2
        assert config.optim.warmup_epochs <= config.train.epochs / 10, seen


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy != "natural"])
def test_a_policy_keeps_its_own_views(name, policy):
    for side in (32, 256):
        views = FITTED[name]("x", facts(side=side), {"policy": policy})[0].views
        for setting, value in POLICIES[policy].values.items():
            assert getattr(views, setting) == value or (setting == "blur" and side <= SMALL), setting


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("side", [32, 96])
def test_its_network_is_built_and_is_light_on_a_cpu(name, side):
    config, _ = FITTED[name]("x", facts(side=side))
    method, features, _ = build_method(config)
    weights = sum(p.numel() for p in method.parameters() if p.requires_grad)
    backbone = sum(p.numel() for p in method.backbone.parameters())
    assert weights - backbone < 12e6
    with torch.no_grad():
        assert method.eval().kept(torch.zeros(1, 3, config.image_size, config.image_size)).shape == (1, features)


@pytest.mark.parametrize("name", FITTED)
def test_help_shows_what_the_recipe_begins_with(name):
    config = skeleton(name)
    assert config.method.name == name
    if name != "patches":
        paper, _ = FITTED[name]("", facts(count=1_300_000, side=400, gpu=True, bf16=False))
        assert (paper.optim.optimizer, paper.optim.lr) == (config.optim.optimizer, config.optim.lr)
        assert paper.views.crop_scale == config.views.crop_scale


@pytest.mark.parametrize("name", TRAINED)
def test_another_optimizer_gets_what_is_usual_with_it(name):
    usual, _ = FITTED[name]("x", facts())
    for optimizer, values in USUAL.items():
        config, _ = FITTED[name]("x", facts(), {"optimizer": optimizer})
        paper = skeleton(name).optim
        if usual.optim.optimizer == optimizer:
            expected = usual.optim.lr, usual.optim.weight_decay
        elif paper.optimizer == optimizer:
            expected = paper.lr, paper.weight_decay
        else:
            expected = values["lr"], values["weight_decay"]
        assert (config.optim.lr, config.optim.weight_decay) == expected, optimizer
        _, choices = FITTED[name]("x", facts(), {"optimizer": optimizer, "lr": 0.3})
        assert "lr" not in chosen(choices)


def test_small_views_are_as_large_as_was_typed_or_not_there():
    assert FITTED["lejepa"]("x", facts())[0].views.local_views == 0
    assert "local_size" not in chosen(FITTED["lejepa"]("x", facts())[1])
    asked = FITTED["lejepa"]("x", facts(), {"local_size": 12})[0].views
    assert asked.local_views == 6


def test_dino_gets_a_vit_where_it_is_made_for_one():
    large = FITTED["dino"]("x", facts(count=1_000_000, side=300, gpu=True))[0]
    assert large.backbone == "timm:vit_small_patch16_224" and not large.method.projector_norm
    assert FITTED["dino"]("x", facts())[0].method.projector_norm
    small = FITTED["dino"]("x", facts(count=1_000_000, side=300, gpu=True), {"image_size": 32})[0]
    assert small.backbone != large.backbone and small.method.projector_norm
    asked = {"backbone": "timm:vit_tiny_patch16_224"}
    assert not FITTED["dino"]("x", facts(side=300), asked)[0].method.projector_norm


@pytest.mark.parametrize("name", TRAINED)
def test_nothing_of_the_method_is_chosen_in_silence(name):
    for seen in SOME:
        config, choices = FITTED[name]("x", seen)
        listed, paper = chosen(choices), settings(type(config)(data="x", method=type(config.method)()))
        for field in fields(config.method):
            value = getattr(config.method, field.name)
            assert value == paper[field.name] or field.name in listed, (seen, field.name)
