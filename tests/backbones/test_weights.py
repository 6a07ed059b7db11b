"""What is read from real files and fitted to a network; ``tests/training/test_warm.py`` has more ways to go wrong."""

import hashlib
import re

import pytest
import torch
from safetensors.torch import save_file

from diptych.backbones.build import build_backbone
from diptych.backbones.weights import Words, fitted, read_weights
from diptych.errors import ConfigError

WORDS = Words(
    flag="--from",
    source="mine:w.safetensors",
    backbone="resnet20v2",
    image_size=16,
    channels=3,
    advice="type this",
    other_network="type that",
)


def network(seed=0, channels=3):
    torch.manual_seed(seed)
    return build_backbone("resnet20v2", image_size=16, channels=channels).module


def refusal(call, *arguments):
    with pytest.raises(ConfigError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_is_read_as_it_was_written_with_its_hash(tmp_path):
    written = {key: value.clone() for key, value in network().state_dict().items()}
    path = tmp_path / "w.safetensors"
    save_file(written, path)
    found, sha256 = read_weights(path, "--from")
    assert list(found) == sorted(written) and all(torch.equal(found[key], written[key]) for key in found)
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_weights_are_found_under_a_prefix_and_fitted_while_the_network_stays_as_it_is():
    module, given = network(0), network(1).state_dict()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    found = {f"net.{key}": value.double() for key, value in given.items() if "num_batches" not in key}
    weights, notes = fitted(found | {"head.weight": torch.ones(2)}, module, WORDS)
    assert all(torch.equal(weights[key], value) for key, value in given.items()) and len(weights) == len(given)
    assert notes == ("left out of mine:w.safetensors, because the backbone has none of it: head.weight",)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_refusals_are_told_in_the_words_that_were_given():
    given = network(1).state_dict()
    some = {key: value for key, value in given.items() if not key.startswith("final")}
    assert re.fullmatch(
        r"--from mine:w.safetensors lacks 4 of the 102 weights of resnet20v2 \(.*\): type that",
        refusal(fitted, some, network(), WORDS),
    )
    extra = dict(given) | {"final.9.weight": torch.ones(1)}
    assert refusal(fitted, extra, network(), WORDS).endswith("has not (final.9.weight): type that")
    assert refusal(fitted, network(1, channels=1).state_dict(), network(), WORDS) == (
        "--from mine:w.safetensors does not fit resnet20v2 for 16 px pictures of 3 channels: stem.0.weight is "
        "(16, 1, 3, 3), not (16, 3, 3, 3); type this"
    )


def test_what_cannot_be_read_is_refused_with_what_was_typed(tmp_path):
    torch.save({}, tmp_path / "w.pth")
    said = refusal(read_weights, tmp_path / "w.pth", "--from", "mine:")
    assert said.startswith(f"--from mine:{tmp_path}/w.pth is no .safetensors file")
    assert said.endswith(f"and type --from mine:{tmp_path}/w.safetensors")
    path = tmp_path / "w.safetensors"
    assert refusal(read_weights, path, "--from").startswith(f"--from: {path} cannot be read (No such file")
    path.write_bytes(b"no weights")
    assert refusal(read_weights, path, "--from").startswith(f"--from: {path} is damaged or no safetensors file")
