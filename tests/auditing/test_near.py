"""Pairs are those of a comparison of all with all."""

import itertools

import numpy as np
import pytest

from diptych.auditing.near import CORRELATION, DISTANCE, SAME, WINDOW, alike, candidates, groups


def flipped(value, bits):
    for bit in bits:
        value ^= 1 << int(bit)
    return value


def as_signed(values):
    return np.array(values, np.uint64).view(np.int64)


def slowly(values):
    unsigned = [int(value) & (1 << 64) - 1 for value in values]
    return [
        [i, j]
        for i, j in itertools.combinations(range(len(values)), 2)
        if bin(unsigned[i] ^ unsigned[j]).count("1") <= DISTANCE
    ]


def test_every_pair_within_the_distance_is_found_and_no_other():
    rng = np.random.default_rng(0)
    bases = [int(value) for value in rng.integers(0, 1 << 63, 150)]
    near = [flipped(bases[k % 150], rng.choice(64, k % 12, replace=False)) for k in range(450)]
    values = as_signed(bases + near)
    assert candidates(values).tolist() == slowly(values) != []


def test_the_worst_spread_of_differences_is_found():
    # Eight bits, each in another of the ten bands, wherever the other two bands lie.
    edges = np.linspace(0, 64, 11).astype(int)
    for kept in itertools.combinations(range(10), 2):
        other = flipped(0, [edges[band] for band in range(10) if band not in kept])
        assert len(candidates(as_signed([0, other]))) == 1


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_compare_gives_no_pair(count):
    assert candidates(np.zeros(count, np.int64)).shape == (0, 2)


def test_thousands_of_one_hash_are_still_one_group_in_bounded_work():
    pairs = candidates(np.zeros(5000, np.int64))
    assert len(pairs) <= 5000 * 2 * SAME
    assert [len(group) for group in groups(map(tuple, pairs.tolist()))] == [5000]


def test_thousands_of_nearly_one_hash_are_too():
    rng = np.random.default_rng(0)
    values = as_signed([flipped(0, rng.choice(64, 3, replace=False)) for _ in range(2000)])
    pairs = candidates(values)
    assert len(pairs) <= 45 * 2000 * WINDOW
    assert [len(group) for group in groups(map(tuple, pairs.tolist()))] == [2000]


def test_pixels_decide():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, 256).astype(np.uint8)
    dimmer = (picture * 0.5 + 20).astype(np.uint8)
    noisy = (0.7 * picture + 0.3 * rng.integers(0, 256, 256)).astype(np.uint8)
    other = rng.integers(0, 256, 256).astype(np.uint8)
    everything = np.stack([picture, dimmer, noisy, other])
    pairs = np.array([[0, 1], [0, 2], [0, 3], [1, 3]])
    kept = alike(pairs, lambda places: everything[places])
    wanted = [pair for pair in pairs.tolist() if np.corrcoef(everything[pair])[0, 1] >= CORRELATION]
    assert kept.tolist() == wanted == [[0, 1], [0, 2]]


def test_groups_join_what_shares_a_member():
    assert groups([(5, 9), (1, 2), (2, 3), (9, 7)]) == [[1, 2, 3], [5, 7, 9]]
