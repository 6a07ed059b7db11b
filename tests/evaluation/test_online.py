import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from diptych.data.decoding.pixels import PixelFormat
from diptych.data.stores.digests import digests_of
from diptych.distributed import World
from diptych.errors import ConfigError, DataError
from diptych.evaluation.features import backbone_features
from diptych.evaluation.online import K, Online, neighbours, read_probe, spacing, stability
from diptych.evaluation.pictures import open_labelled, read_labelled
from diptych.evaluation.probes import knn, linear
from diptych.frozen import BackboneCard, FrozenBackbone, Preprocessing
from diptych.progress import Terminal

SIZE = 8
COLOURS = {"blue": (90, 90, 105), "green": (90, 105, 90), "red": (105, 90, 90)}
QUIET = Terminal(quiet=True)


def paint(folder: Path, per_class=16, classes=tuple(COLOURS), seed=0):
    """Noise around the colour of each class, in a folder of its own."""
    random = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            noise = random.normal(COLOURS[name], 60, (SIZE, SIZE, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).save(folder / name / f"{number:03}.png")
    return folder


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    return paint(tmp_path_factory.mktemp("labelled") / "colours")


def probe_of(data, pictures=2000, chooses=False):
    return read_probe(
        str(data),
        None,
        pictures=pictures,
        size=SIZE,
        pixels=PixelFormat(),
        tile=None,
        chooses=chooses,
        terminal=QUIET,
    )


def backbone(seed=0, weights=None):
    """A convolution and a batch norm."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    if weights is not None:
        nn.init.constant_(module[0].weight, weights)
    made = Preprocessing(image_size=SIZE, mean=(0.5,) * 3, std=(0.25,) * 3)
    card = BackboneCard(schema_version=1, backbone="", num_features=12, seed=0, preprocessing=made)
    return FrozenBackbone(module, card, torch.device("cpu"))


def noise(count, seed=0):
    """Pictures as a store holds them."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 3, SIZE, SIZE), dtype=np.uint8))


def make(probe=None, every=0, epochs=10, best_by=None, count=0):
    made = Online(probe=probe, probe_every=every, epochs=epochs, best_by=best_by, seed=3, world=World())
    made.begin(lambda n, seed: noise(n, seed), count)
    return made


# Neighbours


def test_neighbours_are_the_others_with_the_largest_cosine():
    values = torch.randn(40, 5, generator=torch.Generator().manual_seed(1))
    found = neighbours(values, torch.randperm(40, generator=torch.Generator().manual_seed(2)))
    for row in range(40):
        cosines = [torch.cosine_similarity(values[row], values[other], dim=0).item() for other in range(40)]
        cosines[row] = -2
        expected = sorted(range(40), key=lambda other, found=cosines: -found[other])[:K]
        assert set(found[row].tolist()) == set(expected)


def test_stability_is_the_share_of_neighbours_that_stayed_in_any_order():
    before = torch.arange(K).repeat(4, 1)
    assert stability(before, before.flip(1)) == 1.0
    assert stability(before, before + K) == 0.0
    assert stability(before, torch.where(torch.arange(4)[:, None] == 0, before + 3, before)) == (3 + 0.7) / 4


def test_features_that_are_all_alike_have_neighbours_by_chance_and_do_not_look_settled():
    orders = [torch.randperm(256, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    alike = stability(*(neighbours(torch.ones(256, 4), order) for order in orders))
    values = torch.randn(256, 4, generator=torch.Generator().manual_seed(3))
    assert alike < 0.1 and stability(*(neighbours(values, order) for order in orders)) == 1.0


@pytest.mark.parametrize(
    ("pictures", "sample", "processes", "epochs"),
    [(50_000, 256, 1, 1), (4_267, 256, 1, 1), (4_266, 256, 1, 2), (4_267, 256, 2, 2), (256, 256, 1, 17)],
)
def test_short_epochs_and_many_processes_are_looked_at_less_often(pictures, sample, processes, epochs):
    assert spacing(pictures, sample, processes) == epochs
    assert sample * processes / epochs <= 0.01 * 6 * pictures


def test_the_first_look_has_nothing_to_compare_with_and_later_ones_compare_with_the_last():
    watch = make(count=5000, epochs=4)
    assert watch(lambda: backbone(0), 1) == {}
    assert watch(lambda: backbone(0), 2) == {"neighbour_stability": 1.0}
    changed = watch(lambda: backbone(1), 3)["neighbour_stability"]
    assert 0.05 < changed < 1
    looks = [neighbours(backbone(seed).embed(noise(256, 3)).clone(), torch.arange(256)) for seed in range(2)]
    assert changed == pytest.approx(stability(*looks), abs=1e-3)  # up to neighbours that are equally near


def test_a_checkpoint_carries_the_neighbours_over():
    whole, begun, resumed = (make(count=5000) for _ in range(3))
    for watch in (whole, begun):
        watch(lambda: backbone(0), 1)
    assert resumed.state() == {}
    resumed.restore(begun.state())
    expected = whole(lambda: backbone(1), 2)
    assert resumed(lambda: backbone(1), 2) == expected and expected["neighbour_stability"] < 1


def test_too_few_pictures_have_no_neighbours_worth_comparing():
    watch = make(count=2 * K)
    assert [watch(lambda: pytest.fail("nothing is due"), epochs) for epochs in range(1, 11)] == [{}] * 10


@pytest.mark.parametrize(("count", "epochs"), [(20, 1000), (256, 33), (4266, 3)])
def test_a_best_epoch_cannot_be_told_by_what_is_never_measured(count, epochs):
    with pytest.raises(ConfigError, match="--best-by neighbour_stability needs .*never measured.: choose another") as c:
        make(count=count, epochs=epochs, best_by="neighbour_stability")
    assert "\n" not in str(c.value)
    if count > 20:
        make(count=count, epochs=epochs + 1, best_by="neighbour_stability")


# Labels


def test_accuracies_are_those_of_the_same_functions_called_directly(labelled):
    probe = probe_of(labelled)
    found = make(probe, every=1)(lambda: backbone(0), 1)
    pictures = probe.labelled
    train = backbone_features(backbone(0), pictures.train.images, pictures.train_labels)
    test = backbone_features(backbone(0), pictures.test.images, pictures.test_labels)
    votes, _ = knn.classify(train, test.values, 3)
    logits = linear.fit_linear(train, test.values, 3, 0).logits
    assert found == {
        "knn_top1": (votes.argmax(1) == test.labels).double().mean().item(),
        "linear_top1": (logits.argmax(1) == test.labels).double().mean().item(),
    }
    assert 1 / 3 < found["linear_top1"] < 1


def test_labels_are_looked_at_every_so_many_epochs_and_in_the_last(labelled):
    watch = make(probe_of(labelled, 24), every=3, epochs=8)
    assert [epochs for epochs in range(1, 9) if watch(lambda: backbone(0), epochs)] == [3, 6, 8]


def test_features_that_are_not_finite_have_no_value_and_are_not_remembered(labelled):
    watch = make(probe_of(labelled, 24), every=1, count=5000)
    watch(lambda: backbone(0), 1)
    assert watch(lambda: backbone(0, math.nan), 2) == {}
    assert watch(lambda: backbone(0), 3)["neighbour_stability"] == 1.0


def hashes(pictures):
    return set(digests_of(pictures.images.numpy()).tolist())


def test_what_evaluate_tests_on_has_no_part_in_it(labelled):
    found = probe_of(labelled).labelled
    evaluated = read_labelled(open_labelled(str(labelled), None, None, 0), SIZE, PixelFormat(), QUIET)
    learned, judged, tested = (hashes(part) for part in (found.train, found.test, evaluated.test))
    assert not tested & (learned | judged) and not learned & judged
    assert len(learned) + len(judged) == len(evaluated.train)
    assert abs(len(learned) - len(judged)) <= 3


def test_a_test_part_has_no_part_in_it_either(tmp_path):
    paint(tmp_path / "data" / "train", 6)
    paint(tmp_path / "data" / "test", 4, seed=1)
    found = probe_of(tmp_path / "data").labelled
    tested = read_labelled(open_labelled(str(tmp_path / "data"), None, None, 0), SIZE, PixelFormat(), QUIET).test
    assert (len(found.train), len(found.test)) == (9, 9)
    assert not hashes(tested) & (hashes(found.train) | hashes(found.test))


def test_so_many_pictures_are_drawn_and_the_same_each_time(labelled):
    first, again = (probe_of(labelled, 24).labelled for _ in range(2))
    assert len(first.train) + len(first.test) == 24
    assert torch.equal(first.train.images, again.train.images) and torch.equal(first.test.images, again.test.images)


def test_a_class_of_which_one_picture_was_drawn_is_left_out(tmp_path):
    data = paint(tmp_path / "data" / "train", 12)
    for path in sorted((data / "green").iterdir())[1:]:
        path.unlink()
    paint(tmp_path / "data" / "test", 2, ("blue",))
    assert probe_of(tmp_path / "data").labelled.classes == ("blue", "red")


def test_what_is_said_of_the_labels(labelled):
    described = probe_of(labelled, 24, chooses=True).described
    fingerprint = described.pop("fingerprint")
    assert described == {
        "name": str(labelled),
        "train_pictures": 12,
        "test_pictures": 12,
        "skipped": 0,
        "classes": ["blue", "green", "red"],
        "chose_weights": True,
    }
    assert fingerprint == open_labelled(str(labelled), None, None, 0).fingerprint


@pytest.mark.parametrize(
    ("per_class", "pictures", "told"),
    [
        (1, 99, "class 'blue' of .* has a single picture"),
        (2, 99, "two classes need two or more each: raise --probe-pictures"),
        (3, 99, "a class needs four pictures or more, and none has as many: raise --probe-pictures"),
        (16, 2, "of 2 pictures drawn, two classes need two or more each: raise --probe-pictures"),
    ],
)
def test_labels_that_are_too_few_are_refused(tmp_path, per_class, pictures, told):
    data = paint(tmp_path / "few", per_class)
    with pytest.raises(DataError, match=f"--probe {data} cannot be used: .*{told}") as caught:
        probe_of(data, pictures)
    assert "\n" not in str(caught.value) and "--limit" not in str(caught.value)


def test_a_single_class_is_refused(labelled):
    listed = labelled.parent / "one.csv"
    listed.write_text("\n".join(["path,label", *(f"colours/blue/{number:03}.png,blue" for number in range(8))]))
    with pytest.raises(DataError, match="--probe .*/one.csv cannot be used: .* two classes or more, .* show 'blue'"):
        probe_of(listed)


def test_pictures_without_labels_are_refused(labelled):
    with pytest.raises(DataError, match="--probe .*/blue cannot be used: .* has no labels, which evaluating needs"):
        probe_of(labelled / "blue")


def test_pictures_that_cannot_be_read_are_left_out_and_counted(tmp_path):
    data = paint(tmp_path / "data", 8)
    for path in sorted((data / "red").iterdir())[:2]:
        path.write_bytes(b"no picture")
    found = probe_of(data)
    said = found.described
    assert said["skipped"] >= 1 and said["train_pictures"] == len(found.labelled.train)


# Many processes

TOGETHER = """
import json, sys
sys.path.insert(0, sys.argv[1])
from test_online import backbone, make, noise, probe_of
from diptych.distributed import joined
from diptych.evaluation.online import Online

with joined() as world:
    probe = probe_of(sys.argv[2]) if world.is_main else None
    watch = Online(probe=probe, probe_every=1, epochs=9, best_by=None, seed=3, world=world)
    watch.begin(noise, 10_000)
    # networks that differ, as the statistics of batch norms do where each process has its own
    found = [watch(lambda: backbone(epochs + 10 * world.rank), epochs) for epochs in (1, 2)]
    with open(f"{sys.argv[3]}/{world.rank}.json", "w") as file:
        json.dump(found, file)
"""


def test_all_processes_get_the_values_of_the_first(tmp_path, labelled):
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [*torchrun, str(script), str(Path(__file__).parent), str(labelled), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    alone = make(probe_of(labelled), every=1, count=10_000)
    assert first == second == [alone(lambda: backbone(1), 1), alone(lambda: backbone(2), 2)]
    assert set(first[1]) == {"neighbour_stability", "knn_top1", "linear_top1"}
