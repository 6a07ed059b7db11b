"""Ways to choose against slow transcriptions of their papers, on groups of points that are known."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans

from diptych.seeding import DRAW, generator
from diptych.vectors.choices import CHOICES, kcenter, random, typicality
from diptych.vectors.clusters import k_means


def groups(sizes=(30, 20, 12), width=8, spread=0.15, seed=0):
    """Directions about so many axes, and which axis each belongs to."""
    noise = torch.Generator().manual_seed(seed)
    which = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    values = torch.eye(width)[which] + spread * torch.randn(len(which), width, generator=noise)
    return F.normalize(values), which


def none(values):
    return torch.zeros(len(values), dtype=torch.bool)


def some(values, rows):
    labelled = none(values)
    labelled[rows] = True
    return labelled


def mean_distances(values, rows, count=10):
    """To the nearest others among ``rows``, one after the other."""
    return {
        one: float(np.mean(sorted(float((values[one] - values[o]).norm()) for o in rows if o != one)[:count]))
        for one in rows
    }


def most_typical(values, which, group):
    found = mean_distances(values, (which == group).nonzero()[:, 0].tolist())
    return min(found, key=found.get)


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("budget", [1, 7, 50])
def test_every_way_chooses_others_than_the_labelled_ones_and_the_same_again(name, budget):
    values, _ = groups()
    rows = CHOICES[name](values, some(values, [0, 3, 40]), budget, 5)
    assert len(set(rows)) == len(rows) == budget
    assert not {0, 3, 40} & set(rows)
    assert CHOICES[name](values, some(values, [0, 3, 40]), budget, 5) == rows


@pytest.mark.parametrize("name", CHOICES)
def test_every_way_can_choose_all_there_are(name):
    values, _ = groups((9, 4))
    values = torch.cat([values, values[:5]])
    labelled = some(values, [2, 14])
    assert sorted([*CHOICES[name](values, labelled, 16, 0), 2, 14]) == list(range(18))


@pytest.mark.parametrize("name", ["kcenter", "random"])
def test_other_seeds_choose_others(name):
    values, _ = groups()
    assert CHOICES[name](values, none(values), 5, 0) != CHOICES[name](values, none(values), 5, 1)


def test_random_is_even():
    values, _ = groups((4, 2))
    labelled = some(values, [1])
    first = np.bincount([random(values, labelled, 1, seed)[0] for seed in range(1000)], minlength=6)
    assert first[1] == 0
    assert (abs(np.delete(first, 1) - 200) < 60).all()


@pytest.mark.parametrize("rows", [[], [5], [0, 33, 61]])
def test_kcenter_takes_the_farthest_from_all_before(rows):
    values, _ = groups()
    chosen = kcenter(values, some(values, rows), 8, 3)
    covered = list(rows) or [chosen[0]]
    for row in chosen if rows else chosen[1:]:
        nearest = [min(float((one - values[other]).norm()) for other in covered) for one in values]
        assert nearest[row] == pytest.approx(max(nearest), abs=1e-5)
        covered.append(row)


def test_typicality_takes_the_middle_of_the_largest_groups_first():
    values, which = groups()
    assert typicality(values, none(values), 3, 0) == [most_typical(values, which, group) for group in (0, 1, 2)]


def test_a_group_with_a_label_is_covered():
    values, which = groups()
    assert typicality(values, some(values, [4]), 2, 0) == [most_typical(values, which, group) for group in (1, 2)]


def test_more_than_the_groups_goes_round_them_by_the_fewest_labels(monkeypatch):
    monkeypatch.setattr("diptych.vectors.choices.CLUSTERS", 3)
    values, which = groups()
    chosen = typicality(values, some(values, [0, 1, 35]), 7, 0)
    # 2, 1 and 0 labels are there; each in turn is given to the group with the fewest, of several the largest.
    assert which[chosen].tolist() == [2, 1, 2, 0, 1, 2, 0]
    ranked = mean_distances(values, range(50, 62))
    assert [row for row in chosen if which[row] == 2] == sorted(ranked, key=ranked.get)[:3]


def test_within_a_group_the_order_is_that_of_the_mean_distance_to_ten(monkeypatch):
    monkeypatch.setattr("diptych.vectors.choices.CLUSTERS", 1)
    values, _ = groups((40,), spread=0.6)
    ranked = mean_distances(values, range(40))
    assert typicality(values, none(values), 40, 0) == sorted(ranked, key=ranked.get)


def test_a_handful_far_from_all_waits_until_the_groups_are_empty(monkeypatch):
    monkeypatch.setattr("diptych.vectors.choices.CLUSTERS", 3)
    values, which = groups((12, 9, 5))
    chosen = typicality(values, none(values), 26, 0)
    assert set(which[chosen[:21]].tolist()) == {0, 1}
    assert set(which[chosen[21:]].tolist()) == {2}


def test_copies_of_what_was_chosen_come_last(monkeypatch):
    monkeypatch.setattr("diptych.vectors.choices.CLUSTERS", 2)
    values, which = groups((10, 8))
    middle = most_typical(values, which, 0)
    values = torch.cat([values, values[[middle] * 25]])
    chosen = typicality(values, none(values), 43, 0)
    copies = {middle, *range(18, 43)}
    assert len(copies & set(chosen[:18])) == 1
    assert copies >= set(chosen[18:])


def test_what_rounding_made_of_a_labelled_picture_comes_last(monkeypatch):
    monkeypatch.setattr("diptych.vectors.choices.CLUSTERS", 2)
    values, which = groups((10, 8))
    middle = most_typical(values, which, 0)
    values = torch.cat([values, values[[middle] * 6].half().float()])
    assert not torch.equal(values[18], values[middle])
    chosen = typicality(values, some(values, [middle]), 23, 0)
    assert set(chosen[17:]) == set(range(18, 24))


@pytest.mark.parametrize("name", ["typicality", "kcenter"])
def test_few_distances_at_once_choose_the_same(name, monkeypatch):
    values, _ = groups((60, 45, 30))
    labelled = some(values, [7, 61, 62, 110])
    chosen = CHOICES[name](values, labelled, 30, 1)
    monkeypatch.setattr("diptych.vectors.choices._DISTANCES_AT_ONCE", 50)
    monkeypatch.setattr("diptych.vectors.clusters._DISTANCES_AT_ONCE", 100)
    assert CHOICES[name](values, labelled, 30, 1) == chosen


def test_one_picture_and_pictures_that_are_all_the_same():
    assert typicality(torch.tensor([[1.0, 0]]), none([0]), 1, 0) == [0]
    same = torch.tensor([[0.6, 0.8]]).repeat(6, 1)
    assert sorted(typicality(same, none(same), 6, 0)) == list(range(6))


def inertia(values, labels):
    return sum(float((v - v.mean(0)).square().sum()) for v in (values[labels == one] for one in labels.unique()))


def test_k_means_finds_groups_and_the_same_again():
    values, which = groups((40, 30, 20, 10))
    found = k_means(values, 4, generator(0, DRAW))
    assert all(len(which[found == one].unique()) == 1 for one in range(4))
    assert len(found.unique()) == 4
    assert torch.equal(k_means(values, 4, generator(0, DRAW)), found)


def test_k_means_is_as_good_as_scikit_learns():
    values, _ = groups((300,), spread=1.0)
    ours = np.mean([inertia(values, k_means(values, 12, generator(seed, DRAW))) for seed in range(10)])
    theirs = np.mean([KMeans(12, n_init=1, random_state=seed).fit(values.numpy()).inertia_ for seed in range(10)])
    assert ours == pytest.approx(theirs, rel=0.02)


def test_every_vector_is_nearest_to_the_mean_of_its_cluster():
    values, _ = groups((40, 30, 20), spread=1.0)
    found = k_means(values, 7, generator(1, DRAW))
    means = torch.stack([values[found == one].mean(0) for one in range(7)])
    assert torch.equal(torch.cdist(values, means).argmin(1), found)


def test_fewer_different_vectors_than_clusters_leave_some_empty():
    values = torch.eye(3).repeat(4, 1)
    found = k_means(values, 8, generator(0, DRAW))
    assert len(found.unique()) == 3
    assert all(len(found[row::3].unique()) == 1 for row in range(3))
