"""Copies, near-duplicates and groups that were planted on both sides, and nothing where nothing was."""

import json

import numpy as np
import pytest
import torch
from skimage import data

from diptych.data.stores.memory import MemoryStore
from diptych.evaluation import near
from diptych.evaluation.leakage import SharedGroup, find_leaks


def store(images):
    return MemoryStore(images=images, source_indices=torch.arange(len(images)))


def nobody(pictures):
    return [None] * len(pictures)


@pytest.fixture(scope="module")
def pictures():
    """Squares of a face and of a cat, at half their size, ``(60, 3, 32, 32)``, no two alike."""
    squares = [
        photo[top : top + 64 : 2, left : left + 64 : 2].transpose(2, 0, 1)
        for photo in (data.chelsea(), data.astronaut())
        for top in range(0, photo.shape[0] - 63, 64)
        for left in range(0, photo.shape[1] - 63, 64)
    ]
    return torch.from_numpy(np.stack(squares[:60]))


def test_nothing_leaks_between_different_pictures(pictures):
    leaks = find_leaks(store(pictures[20:]), store(pictures[:20]), nobody(range(40)), nobody(range(20)))
    assert not leaks.tainted.any() and leaks.sentences() == [] and leaks.tainted.shape == (20,)
    assert leaks.to_dict() == {
        "test_pictures": 20,
        "tainted": 0,
        "copied": 0,
        "alike": 0,
        "grouped": 0,
        "copies": [],
        "near": [],
        "groups": [],
    }


def test_each_kind_is_told_apart_and_counted_once(pictures):
    learned, tested = pictures[20:], pictures[:20].clone()
    learned = torch.cat([learned, learned[3:4]])  # 3 and 40 are the same
    tested[2], tested[7] = learned[3], learned[11]
    tested[5] = (learned[14].flip(-1) * 0.8).byte()
    tested[7] = learned[11]
    learned_groups, tested_groups = ["a"] * 20 + ["b"] * 11 + [None] * 10, nobody(range(20))
    tested_groups[7], tested_groups[9], tested_groups[10], tested_groups[11] = "b", "b", "a", "c"
    leaks = find_leaks(store(learned), store(tested), learned_groups, tested_groups)

    assert leaks.copies.tolist() == [[2, 3], [7, 11]]
    assert leaks.near.pairs.tolist() == [[5, 14]] and leaks.near.likeness.item() > 0.99
    assert leaks.groups == (SharedGroup(name="a", train=20, test=1), SharedGroup(name="b", train=11, test=2))
    assert leaks.copied.nonzero().flatten().tolist() == [2, 7] and leaks.alike.nonzero().flatten().tolist() == [5]
    assert leaks.grouped.nonzero().flatten().tolist() == [7, 9, 10]
    assert leaks.tainted.nonzero().flatten().tolist() == [2, 5, 7, 9, 10]
    assert leaks.sentences() == [
        "2 of 20 test pictures are exact copies of training pictures",
        "1 of 20 test pictures looks like a training picture but for compression, brightness, a small cut or mirroring",
        "2 groups have training pictures too ('a', 'b'): 3 of 20 test pictures are no test of new ones",
        "5 of 20 test pictures have leaked in one of these ways or several; 15 have not",
    ]
    found = json.loads(json.dumps(leaks.to_dict()))
    assert (found["tainted"], found["copied"], found["alike"], found["grouped"]) == (5, 2, 1, 3)
    assert found["copies"] == [[2, 3], [7, 11]] and found["near"][0] == {
        "test": 5,
        "train": 14,
        "likeness": pytest.approx(leaks.near.likeness.item(), abs=1e-3),
    }
    assert found["groups"][1] == {"name": "b", "train": 11, "test": 2}


def test_copies_and_near_pictures_are_found_side_by_side(pictures):
    tested = pictures[:10].clone()
    tested[:4] = pictures[30:34]
    tested[6], tested[8] = (pictures[40] * 0.7).byte(), (pictures[41] * 0.7).byte()
    leaks = find_leaks(store(pictures[20:]), store(tested), nobody(range(40)), nobody(range(10)))
    assert leaks.near.pairs.tolist() == [[6, 20], [8, 21]]
    assert leaks.tainted.tolist() == [True] * 4 + [False, False, True, False, True, False]


def test_copies_are_not_called_near_as_well(pictures):
    leaks = find_leaks(store(pictures), store(pictures[5:9]), nobody(range(60)), nobody(range(4)))
    assert leaks.copies.tolist() == [[0, 5], [1, 6], [2, 7], [3, 8]] and len(leaks.near.pairs) == 0
    assert leaks.tainted.all() and len(leaks.sentences()) == 1


def test_flat_pictures_leak_by_their_exact_pixels_alone():
    learned = torch.full((3, 1, 32, 32), 7, dtype=torch.uint8)
    tested = torch.tensor([7, 8], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 32, 32).contiguous()
    leaks = find_leaks(store(learned), store(tested), nobody(range(3)), nobody(range(2)))
    assert leaks.copies.tolist() == [[0, 0]] and leaks.tainted.tolist() == [True, False]


def test_features_propose_for_the_right_test_pictures(monkeypatch):
    # Test pictures 0 and 1 are copies: what is proposed for the others must not slip by them.
    photo = data.astronaut()[::2, ::2].transpose(2, 0, 1)
    corners = [(top, left) for top in range(4, 216, 30) for left in range(4, 216, 30)]
    learned, moved = (
        torch.from_numpy(np.stack([photo[:, t + by : t + by + 32, le + by : le + by + 32] for t, le in corners]))
        for by in (0, 3)
    )
    tested = torch.cat([learned[:2], moved[2:]])
    monkeypatch.setattr(near, "CANDIDATES", 1)  # as if the training pictures were so many that others come before
    features = torch.eye(len(corners))
    groups = nobody(corners)
    plain = find_leaks(store(learned), store(tested), groups, groups)
    helped = find_leaks(store(learned), store(tested), groups, groups, (features, features))
    assert helped.alike.sum() > plain.alike.sum()
    assert (helped.near.pairs[:, 0] == helped.near.pairs[:, 1]).all()


def test_a_long_list_of_groups_is_cut(pictures):
    names = [f"g{number}" for number in range(10)]
    leaks = find_leaks(store(pictures[:10]), store(pictures[10:20]), names, names)
    assert leaks.sentences() == [
        "10 groups have training pictures too ('g0', 'g1', 'g2', …): 10 of 10 test pictures are no test of new ones"
    ]


def test_one_group(pictures):
    leaks = find_leaks(store(pictures[:9]), store(pictures[10:12]), ["x"] * 9, ["x", None])
    assert leaks.sentences() == ["1 group has training pictures too ('x'): 1 of 2 test pictures is no test of new ones"]
