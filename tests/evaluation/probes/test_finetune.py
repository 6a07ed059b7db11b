import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from diptych.errors import DataError
from diptych.evaluation.probes import finetune as module
from diptych.evaluation.probes.finetune import Lesson, choose_start, finetune, steps_for
from diptych.evaluation.probes.holding_out import hold_out
from diptych.frozen import BackboneCard, FrozenBackbone, Preprocessing, prepared
from diptych.seeding import ORDER, VIEWS, generator
from diptych.views.config import ViewsConfig

SIZE, WIDTH = 8, 12


def backbone(seed: int = 0) -> FrozenBackbone:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, WIDTH, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    made = Preprocessing(image_size=SIZE, mean=(0.5, 0.4, 0.5), std=(0.25, 0.25, 0.2))
    card = BackboneCard(schema_version=1, backbone="none", num_features=WIDTH, seed=0, preprocessing=made)
    return FrozenBackbone(network, card, torch.device("cpu"))


def lesson(count: int = 60, **changes) -> Lesson:
    """Noisy pictures of three colours."""
    labels = torch.arange(count) % 3
    colours = torch.eye(3)[labels] * 60 + 90
    noise = 40 * torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    images = (colours[:, :, None, None] + noise).clamp(0, 255).byte()
    known = {"images": images, "labels": labels, "classes": 3, "views": ViewsConfig(), "seed": 0, "steps": 40}
    return Lesson(**known | changes)


def test_it_learns_and_leaves_the_backbone_as_it_was():
    frozen, task = backbone(), lesson(90)
    before = copy.deepcopy(frozen.module.state_dict())
    part = replace(task, images=task.images[:60], labels=task.labels[:60])
    tuned = finetune(frozen, part, task.images[60:], 1e-2)
    assert (tuned.logits.argmax(1) == task.labels[60:]).float().mean() > 0.9
    assert all(torch.equal(before[key], value) for key, value in frozen.module.state_dict().items())
    assert not any(p.requires_grad for p in frozen.module.parameters()) and not frozen.module.training
    again = finetune(frozen, part, task.images[60:], 1e-2)
    assert torch.equal(tuned.logits, again.logits)
    assert not torch.equal(tuned.logits, finetune(frozen, replace(part, seed=1), task.images[60:], 1e-2).logits)


def test_one_step_is_that_of_adamw(monkeypatch):
    """The first step of Adam is the gradient's sign by the rate; matrices decay besides."""
    monkeypatch.setattr(module, "native_bf16", lambda kind: False)
    frozen, rate = backbone(), 1e-2
    task = replace(lesson(6, steps=1), labels=torch.tensor([0, 0, 0, 1, 1, 2]))
    got = finetune(frozen, task, task.images, rate).logits

    network = nn.Sequential(copy.deepcopy(frozen.module), module._layer(frozen, task)).requires_grad_(True)
    views = module._views(frozen, task.views)
    rows = torch.randperm(6, generator=generator(0, ORDER, 0))
    crops = torch.cat(views(task.images[rows], generator(0, VIEWS, 0)))
    F.cross_entropy(network(crops), task.labels[rows].repeat(2)).backward()
    with torch.no_grad():
        for weight in network.parameters():
            weight *= 1 - rate * 0.05 * (weight.ndim > 1)
            weight -= rate * torch.sign(weight.grad)
        expected = network(prepared(task.images, frozen.preprocessing, frozen.device))
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def test_the_layer_begins_as_a_linear_probe():
    """That of scikit-learn at the same strength, on the same frozen features."""
    frozen, task = backbone(), lesson(60)
    values = frozen.embed(task.images).numpy()
    scaler = StandardScaler().fit(values)
    reference = LogisticRegression(C=1 / (module.PROBE_L2 * 60), tol=1e-8, max_iter=5000)
    wanted = reference.fit(scaler.transform(values), task.labels.numpy()).predict_proba(scaler.transform(values))
    found = module._layer(frozen, task)(torch.from_numpy(values)).softmax(dim=1)
    torch.testing.assert_close(found, torch.from_numpy(wanted).float(), atol=2e-3, rtol=0)
    assert not module._layer(frozen, replace(task, labels=torch.randn(60, 2), classes=2)).weight.any()
    assert not module._layer(frozen, replace(task, is_probed=False)).weight.any()


def test_crops_are_flipped_as_the_run_does_and_never_recoloured():
    plain = torch.full((4, 3, SIZE, SIZE), 77, dtype=torch.uint8)
    for view in module._views(backbone(), ViewsConfig(jitter=1.0, blur=1.0))(plain, generator(0)):
        torch.testing.assert_close(view, prepared(plain, backbone().preprocessing, torch.device("cpu")))
    config = module._views(backbone(), ViewsConfig(horizontal_flip=0.0, vertical_flip=0.5, rotate90=1.0)).config
    assert (config.horizontal_flip, config.vertical_flip, config.rotate90) == (0.0, 0.5, 1.0)


def test_the_rate_is_chosen_on_labelled_pictures_that_were_held_out():
    assert choose_start(backbone(), lesson(), rates=(1e18, 1e-3))[0] == 1e-3  # which diverges


def misleading(steps: int) -> Lesson:
    """What is held out is like any class but its own."""
    task = lesson(steps=steps)
    kept, held = hold_out(task.labels, 0)
    colours = torch.full((60, 3), 120.0)
    colours[kept, task.labels[kept]] = 200
    colours[held, task.labels[held]] = 20  # as no other class: easily learned, and never guessed
    return replace(task, images=colours[:, :, None, None].expand(60, 3, SIZE, SIZE).byte())


def test_what_chooses_the_rate_is_not_learned_from():
    assert choose_start(backbone(), misleading(steps=60), rates=(1e-5, 1e-2))[0] == 1e-5


def test_what_leaves_no_rate_to_choose_is_refused():
    with pytest.raises(DataError, match="single labelled picture.*more --labels"):
        choose_start(backbone(), lesson(3))
    with pytest.raises(DataError, match="diverged at every learning rate"):
        choose_start(backbone(), lesson(steps=4), rates=(1e30,))


def test_the_layer_begins_as_a_probe_where_that_does_better():
    assert choose_start(backbone(), lesson(steps=2), rates=(1e-6,)) == (1e-6, True)  # zeros would stay zeros
    assert choose_start(backbone(), misleading(steps=2), rates=(1e-6,)) == (1e-6, False)  # zeros guess one class


def test_of_classes_errors_choose_and_not_the_loss(monkeypatch):
    """A probe that is sure of what it says loses more by one error than zeros do by saying nothing."""
    monkeypatch.setattr(module, "loss", lambda logits, truth: logits.sum() * 0.0 + (logits != 0).any())
    assert choose_start(backbone(), lesson(steps=1), rates=(1e-6,)) == (1e-6, True)
    several = torch.nn.functional.one_hot(lesson().labels).bool()
    assert choose_start(backbone(), replace(lesson(steps=1), labels=several), rates=(1e-6,)) == (1e-6, False)


def test_steps_grow_with_the_labels_between_bounds():
    assert [steps_for(count) for count in (1, 1280, 6400, 10**6)] == [200, 200, 1000, 2000]


def test_batch_norm_meets_a_single_labelled_picture_of_a_class():
    torch.manual_seed(0)
    frozen = backbone()
    frozen.module = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, WIDTH), nn.BatchNorm1d(WIDTH)).eval()
    task = lesson(2, classes=2, labels=torch.tensor([0, 1]), steps=3)
    assert finetune(frozen, task, task.images, 1e-3).logits.isfinite().all()


def test_several_labels_are_learned():
    task = lesson(90)
    colours = task.labels
    several = torch.stack([colours == 0, colours != 2, colours == 2], dim=1)
    part = replace(task, images=task.images[:60], labels=several[:60])
    tuned = finetune(backbone(), part, task.images[60:], 1e-2)
    assert ((tuned.logits > 0) == several[60:]).float().mean() > 0.9


def test_quantities_are_learned_and_answered_in_their_units():
    task = lesson(90)
    truth = torch.stack([task.labels * 1e3 + 1e6, torch.full((90,), 2.5)], dim=1).double()
    truth[:, 0] = torch.tensor([1e6, 1e6 + 500, 1e6 + 1000], dtype=torch.float64)[task.labels]
    part = replace(task, images=task.images[:60], labels=truth[:60], classes=2)
    answers = finetune(backbone(), part, task.images[60:], 1e-2).logits
    assert (answers[:, 0] - truth[60:, 0]).abs().mean() < 150  # of a range of 1,000
    torch.testing.assert_close(answers[:, 1], truth[60:, 1], atol=0.3, rtol=0)  # it did not vary
    assert choose_start(backbone(), part, (1e-6, 1e-2)) == (1e-2, False)
