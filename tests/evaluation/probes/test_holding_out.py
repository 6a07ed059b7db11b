"""What is held out to choose a probe's settings: a fifth, every class left to learn from, groups whole."""

import numpy as np
import torch

from diptych.evaluation.features import Features
from diptych.evaluation.probes.holding_out import hold_out
from diptych.evaluation.probes.linear import fit_linear
from diptych.evaluation.probes.ridge import fit_ridge

PATIENTS, EACH = 40, 8
CLASSES, QUANTITIES = 60, 25
"""Features a patient, where it is classes that are told, or quantities."""


def test_a_fifth_of_each_class_is_held_out() -> None:
    labels = torch.tensor([0] * 50 + [1] * 10 + [2] * 2 + [3])
    kept, held = hold_out(labels, seed=0)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(63))
    assert labels[held].bincount(minlength=4).tolist() == [10, 2, 1, 0]  # the single one is kept to fit on
    assert torch.equal(held, hold_out(labels, seed=0)[1])
    assert not torch.equal(held, hold_out(labels, seed=1)[1])


def test_groups_are_held_out_whole() -> None:
    groups = torch.arange(300) // 6
    labels = (torch.arange(300) % 3)[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    for seed in range(5):
        kept, held = hold_out(labels, seed, groups=groups)
        assert sorted([*kept.tolist(), *held.tolist()]) == list(range(300))
        assert len(held) == 60 and not set(groups[kept].tolist()) & set(groups[held].tolist())
    assert not torch.equal(held, hold_out(labels, 0, groups=groups)[1])


def test_no_group_is_held_out_that_has_all_pictures_of_a_class() -> None:
    labels = torch.tensor([0] * 9 + [1] * 3 + [0] * 12 + [2] * 4)
    groups = torch.tensor([0] * 12 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4)  # classes 1 and 2 in a single group each
    for seed in range(20):
        held = hold_out(labels, seed, groups=groups)[1]
        assert len(held) == 4 and not {0, 4} & set(groups[held].tolist())


def test_where_each_class_is_a_single_group_pictures_are_held_out() -> None:
    labels = torch.arange(3).repeat_interleave(10)
    assert torch.equal(hold_out(labels, 0, groups=labels)[1], hold_out(labels, 0)[1])


def test_of_two_large_groups_the_smaller_is_held_out() -> None:
    labels, groups = torch.arange(40) % 2, (torch.arange(40) >= 22).long()
    for seed in range(4):
        assert hold_out(labels, seed, groups=groups)[1].tolist() == list(range(22, 40))


def test_numbers_of_groups_that_no_picture_has_do_no_harm() -> None:
    labels, groups = torch.arange(40) % 2, torch.arange(40) // 4 * 3
    kept, held = hold_out(labels, 0, groups=groups)
    assert len(held) == 8 and not set(groups[kept].tolist()) & set(groups[held].tolist())


def patients(seed: int, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features that tell each patient apart, and the label weakly; the label is the patient's."""
    random = np.random.default_rng(seed)
    groups = np.arange(PATIENTS * EACH) // EACH
    labels = random.integers(0, 2, PATIENTS)[groups]
    own = random.normal(size=(PATIENTS, width))[groups]
    values = own + 0.1 * random.normal(size=own.shape)
    values[:, 0] += 1.5 * labels
    return torch.from_numpy(values).float(), torch.from_numpy(labels), torch.from_numpy(groups)


def test_strength_is_chosen_for_new_groups() -> None:
    """Pictures of one patient on both sides would make the weakest penalty look best."""
    for seed in range(3):
        values, labels, groups = patients(seed, CLASSES)
        new, truth, _ = patients(seed + 100, CLASSES)
        parted = fit_linear(Features(values, labels), new, 2, seed=0)
        kept = fit_linear(Features(values, labels, groups), new, 2, seed=0)
        assert kept.l2 >= 100 * parted.l2
        right = [(probe.logits.argmax(1) == truth).double().mean() for probe in (kept, parted)]
        assert right[0] > right[1]


def test_strength_for_quantities_is_chosen_for_new_groups() -> None:
    for seed in range(3):
        values, labels, groups = patients(seed, QUANTITIES)
        new, truth, _ = patients(seed + 100, QUANTITIES)
        parted, kept = (
            fit_ridge(Features(values, labels[:, None].double(), which), new, seed=0) for which in (None, groups)
        )
        assert kept.l2 >= 10 * parted.l2
        wrong = [(probe.answers[:, 0] - truth).square().mean() for probe in (kept, parted)]
        assert wrong[0] < wrong[1]


def test_a_part_of_features_keeps_its_groups() -> None:
    whole = Features(torch.arange(6.0)[:, None], torch.arange(6), torch.tensor([0, 0, 1, 1, 2, 2]))
    part = whole.part(torch.tensor([5, 1]))
    assert part.values.tolist() == [[5.0], [1.0]] and part.labels.tolist() == [5, 1]
    assert part.groups is not None and part.groups.tolist() == [2, 0]
    assert Features(whole.values, whole.labels).part(torch.tensor([1])).groups is None
