import pytest
import torch

from diptych.seeding import DRAW, ORDER, SPLIT, VIEWS, WEIGHTS, generator


def numbers(*keys):
    return torch.randint(1 << 30, (4,), generator=generator(*keys)).tolist()


def test_the_same_keys_give_the_same_numbers():
    assert numbers(1, 2) == numbers(1, 2)


def test_order_and_number_of_keys_matter():
    streams = [(1, 2), (2, 1), (12,), (1,), (2,), (1, 2, 0), (0, 1, 2), (0,), (0, 0), ()]
    assert len({tuple(numbers(*keys)) for keys in streams}) == len(streams)


def test_global_random_state_is_untouched():
    before = torch.random.get_rng_state()
    numbers(3)
    assert torch.equal(before, torch.random.get_rng_state())


def test_purposes_differ():
    assert len({ORDER, VIEWS, WEIGHTS, DRAW, SPLIT}) == 5


def test_negative_keys_are_refused():
    with pytest.raises(ValueError):
        generator(-1)
