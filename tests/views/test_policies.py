"""Policies: valid settings, and true to what their sentences say."""

from dataclasses import fields
from typing import get_args

import pytest

from diptych.views.config import CHOICES, PolicyName, ViewsConfig, for_channels
from diptych.views.policies import POLICIES


def test_every_policy_can_be_chosen_and_no_other():
    assert tuple(POLICIES) == get_args(PolicyName) == CHOICES["policy"]


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_names_real_settings_and_only_changes(name):
    policy, default = POLICIES[name], ViewsConfig()
    config = ViewsConfig(policy=name, **policy.values)
    assert set(policy.values) <= {field.name for field in fields(ViewsConfig)} - {"policy"}
    assert all(getattr(config, setting) != getattr(default, setting) for setting in policy.values)
    assert policy.sentence.endswith(".") and "\n" not in policy.sentence


def test_natural_is_the_default():
    assert ViewsConfig(policy="natural", **POLICIES["natural"].values) == ViewsConfig()


@pytest.mark.parametrize("name", ["overhead", "microscopy"])
def test_where_no_side_is_up_every_one_is_as_likely(name):
    values = POLICIES[name].values
    assert (ViewsConfig().horizontal_flip, values["vertical_flip"], values["rotate90"]) == (0.5, 0.5, 0.75)


def test_grayscale_asks_for_no_colour():
    _, notes = for_channels(ViewsConfig(policy="grayscale", **POLICIES["grayscale"].values), 1)
    assert notes == ()
