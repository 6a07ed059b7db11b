import itertools
import json
from dataclasses import replace

import pytest
import torch

from diptych.config import flatten, from_dict, to_dict
from diptych.data.decoding.pixels import PixelFormat
from diptych.errors import ConfigError, DataError
from diptych.recipes.book import DEFAULT, FIXED, RECIPES, entries, recipe
from diptych.recipes.facts import Facts
from diptych.recipes.fitted import CPU_VIEWS, GPU_VIEWS, MOST_EPOCHS
from diptych.recipes.simsiam import simsiam
from diptych.seeding import generator
from diptych.training.config import RunConfig
from diptych.training.run import build_method
from diptych.views.pipeline import ViewMaker
from diptych.views.policies import POLICIES

COUNTS = (2, 3, 17, 63, 200, 1_000, 9_999, 50_000, 1_300_000, 100_000_000)
SIDES = (1, 24, 32, 48, 49, 64, 96, 97, 256, 4_000)
KINDS = (PixelFormat(), PixelFormat(channels=1), PixelFormat(channels=13, depth="uint16"))
EVERY = [
    Facts(count=count, side=side, pixels=pixels, gpu=gpu, bf16=bf16)
    for count, side, pixels, gpu, bf16 in itertools.product(COUNTS, SIDES, KINDS, *[(False, True)] * 2)
]


def settings(config):
    """Each setting by its own name, as a flag names it."""
    return {name.rpartition(".")[2]: value for name, value in flatten(to_dict(config)).items()}


def chosen(choices):
    """Each setting that the choices name, with the words that follow its flag."""
    found = {}
    for choice in choices:
        for flag in choice.what.split("--")[1:]:
            name, *words = flag.split()
            if name.startswith("no-"):
                name, words = name.removeprefix("no-"), ["0"]
            found[name.replace("-", "_")] = words or ["1"]  # a switch
    return found


def means(words, value):
    """Whether the words after a flag mean ``value``."""
    values = value if isinstance(value, list) else [value]
    return len(words) == len(values) and all(
        word == value if isinstance(value, str) else float(word) == value
        for word, value in zip(words, values, strict=True)
    )


@pytest.mark.parametrize("name", FIXED)
def test_a_fixed_recipe_needs_no_pictures_and_chooses_nothing(name):
    order = recipe(name, "nowhere/")
    assert order.recipe == name and order.config.data == "nowhere/" and not order.choices


@pytest.mark.parametrize("name", FIXED)
def test_a_fixed_recipe_comes_back_from_json(name):
    config = recipe(name, "x").config
    assert from_dict(RunConfig, json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize("name", FIXED)
def test_a_fixed_recipe_builds_its_network(name):
    method, features, _ = build_method(recipe(name, "x").config)
    size = recipe(name, "x").config.image_size
    with torch.no_grad():
        assert method.eval().backbone(torch.zeros(1, 3, size, size)).shape == (1, features)


def test_an_unknown_recipe_gets_a_suggestion():
    with pytest.raises(ConfigError, match="unknown recipe 'simsaim-cifar'; did you mean 'simsiam-cifar'"):
        recipe("simsaim-cifar", "x")


def test_every_recipe_is_listed_in_words_of_its_own():
    found = entries()
    assert [entry.name for entry in found] == list(RECIPES) and found[0].name == DEFAULT
    assert all(entry.what_for and "\n" not in entry.what_for + entry.measured for entry in found)
    assert len({entry.what_for for entry in found}) == len(found)


def test_a_measured_result_is_taken_from_the_docstring():
    (imagenet,) = (entry for entry in entries() if entry.name == "simsiam-imagenet")
    assert imagenet.measured and imagenet.measured in " ".join(RECIPES["simsiam-imagenet"].__doc__.split())
    assert not imagenet.measured.startswith("Measured")


def test_keras_simsiam_has_the_numbers_of_the_keras_example():
    config = recipe("keras-simsiam", "x").config
    views, optim, method, train = config.views, config.optim, config.method, config.train
    assert (config.backbone, config.image_size) == ("resnet20v2-nofinal", 32)
    assert (train.batch_size, train.epochs, train.patience, train.precision) == (128, 5, 5, "fp32")
    assert (optim.momentum, optim.weight_decay, optim.warmup_epochs) == (0.6, 0.0, 0.0)
    assert optim.peak_lr(128) == optim.peak_lr(4096) == 0.03
    assert (views.crop, views.crop_padding, views.horizontal_flip, views.vertical_flip) == ("padded", 0, 0.5, 0.0)
    assert (views.jitter, views.grayscale, views.blur) == (0.8, 0.2, 0.0)
    assert (views.brightness, views.contrast, views.saturation, views.hue) == (0.32, 0.32, 0.32, 0.02)
    assert (views.brightness_mode, views.jitter_order) == ("add", "fixed")
    assert (method.projector_layers, method.projector_width, method.predictor_width) == (2, 2048, 512)
    assert (method.predictor_order, method.predictor_constant_lr) == ("relu-norm", False)


def test_keras_simsiam_crops_nothing_off():
    """The example takes 32 px at random out of 32 px pictures: there is one place to take them from."""
    config = recipe("keras-simsiam", "x").config
    still = replace(config.views, horizontal_flip=0.0, jitter=0.0, grayscale=0.0)
    images = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator(0))
    for view in ViewMaker(still, config.image_size).draw(images, generator(1)):
        assert torch.equal(view, images / 255)


def test_simsiam_cifar_has_the_numbers_of_appendix_d():
    config = recipe("simsiam-cifar", "x").config
    optim, method, train = config.optim, config.method, config.train
    assert (config.backbone, config.image_size, config.views.blur) == ("timm:resnet18", 32, 0.0)
    assert (train.batch_size, train.epochs, train.patience) == (512, 800, 0)
    assert (optim.momentum, optim.weight_decay, optim.warmup_epochs) == (0.9, 5e-4, 0.0)
    assert optim.peak_lr(512) == pytest.approx(0.03 * 512 / 256)
    assert (method.projector_layers, method.projector_width, method.predictor_width) == (2, 2048, 512)
    assert method.predictor_order == "norm-relu"


def test_simsiam_imagenet_has_the_numbers_of_section_4():
    config = recipe("simsiam-imagenet", "x").config
    views, optim, method, train = config.views, config.optim, config.method, config.train
    assert (config.backbone, config.image_size) == ("timm:resnet50", 224)
    assert (train.batch_size, train.epochs, train.patience) == (512, 100, 0)
    assert (optim.momentum, optim.weight_decay, optim.warmup_epochs) == (0.9, 1e-4, 0.0)
    assert optim.peak_lr(512) == pytest.approx(0.05 * 512 / 256)
    assert (method.projector_layers, method.projector_width, method.predictor_width) == (3, 2048, 512)
    assert (method.predictor_order, method.predictor_constant_lr) == ("norm-relu", True)
    assert (views.crop, views.crop_scale, views.horizontal_flip) == ("resized", (0.2, 1.0), 0.5)
    assert (views.jitter, views.grayscale, views.blur, views.blur_sigma) == (0.8, 0.2, 0.5, (0.1, 2.0))
    assert (views.brightness, views.contrast, views.saturation, views.hue) == (0.4, 0.4, 0.4, 0.1)


def test_the_default_recipe_looks_at_the_pictures(tmp_path):
    with pytest.raises(DataError, match="is empty"):
        recipe(DEFAULT, str(tmp_path))


def test_the_default_recipe_comes_back_from_json_whatever_the_pictures():
    for facts in EVERY:
        config, _ = simsiam("x", facts)
        assert config.data == "x" and from_dict(RunConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_each_choice_of_the_default_recipe_is_what_the_configuration_holds_and_has_a_reason():
    for facts in EVERY:
        config, choices = simsiam("x", facts)
        values = settings(config)
        assert all(choice.why and "\n" not in choice.what + choice.why for choice in choices)
        for name, words in chosen(choices).items():
            assert means(words, values[name]), (facts, name, words, values[name])


def test_no_setting_is_chosen_twice():
    for facts in EVERY:
        _, choices = simsiam("x", facts)
        assert len(chosen(choices)) == sum(choice.what.count("--") for choice in choices)


def test_a_batch_of_the_default_recipe_is_never_larger_than_the_pictures():
    for facts in [*EVERY, *(replace(EVERY[0], count=count) for count in range(2, 300))]:
        config, _ = simsiam("x", facts)
        assert 2 <= config.train.batch_size <= facts.count, facts


def test_pictures_get_the_channels_the_type_and_the_views_that_they_have():
    for facts in EVERY:
        config, choices = simsiam("x", facts)
        assert config.pixels == facts.pixels
        policy = {1: "grayscale", 3: "natural", 13: "overhead"}[facts.pixels.channels]
        assert config.views.policy == policy
        assert all(getattr(config.views, name) == value for name, value in POLICIES[policy].values.items()) or (
            config.image_size <= 64 and config.views.blur == 0
        )
        said = {"channels", "depth", "policy"} & chosen(choices).keys()
        assert said == (set() if facts.pixels == PixelFormat() else {"channels", "depth", "policy"})


def test_a_policy_that_was_asked_for_is_taken_by_every_recipe():
    for name in FIXED:
        views = recipe(name, "x", {"policy": "overhead"}).config.views
        assert (views.rotate90, views.vertical_flip, views.mean) == (0.75, 0.5, ())
    views = simsiam("x", EVERY[0], {"policy": "microscopy"})[0].views
    assert views.rotate90 == 0.75 and views.noise > 0


def test_bfloat16_is_chosen_only_where_it_is_native():
    for facts in EVERY:
        config, _ = simsiam("x", facts)
        assert (config.train.precision == "bf16") <= facts.bf16, facts


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("gpu", "budget", "counts"),
    [
        (False, CPU_VIEWS, (100, 333, 1_000, 5_000, 20_000, 50_000)),
        (True, GPU_VIEWS, (30_000, 50_000, 1_300_000, 9_000_000)),
    ],
)
def test_as_many_views_are_shown_as_the_machine_has_time_for(side, gpu, budget, counts):
    for count in counts:
        train = simsiam("x", Facts(count=count, side=side, pixels=PixelFormat(), gpu=gpu, bf16=False))[0].train
        shown = train.epochs * (count // train.batch_size) * train.batch_size
        assert budget / 2 <= shown <= 2 * budget, (count, shown)


def test_a_run_on_few_pictures_ends_and_one_on_many_sees_each_once():
    for facts in EVERY:
        assert 1 <= simsiam("x", facts)[0].train.epochs <= MOST_EPOCHS, facts


def test_whatever_depends_on_the_pictures_or_the_machine_is_listed():
    seen = [(facts, *simsiam("x", facts)) for facts in EVERY]
    paper = settings(RunConfig(data="x"))
    varies = {name for name in paper if len({str(settings(config)[name]) for _, config, _ in seen}) > 1}
    for facts, config, choices in seen:
        silent = {name for name in varies if settings(config)[name] != paper[name]} - chosen(choices).keys()
        silent -= POLICIES[config.views.policy].values.keys()  # the policy, which is listed, stands for them
        assert not silent, (facts, silent)


def test_what_the_user_asked_for_is_not_chosen_and_the_rest_goes_with_it():
    facts = Facts(count=1_000, side=400, pixels=PixelFormat(), gpu=False, bf16=False)
    config, choices = simsiam("x", facts, {"image_size": 32, "epochs": 2})
    assert config.backbone == "resnet20v2" and config.views.blur == 0
    assert not {"image_size", "epochs"} & chosen(choices).keys()
