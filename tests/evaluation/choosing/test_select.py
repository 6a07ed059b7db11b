import json
import shutil
import tarfile
from dataclasses import replace

import pytest
import tiny
import torch
from PIL import Image

from diptych import checkpoint
from diptych.config import with_settings
from diptych.errors import ConfigError, DataError, RunFolderError
from diptych.evaluation.choosing import candidates as offers
from diptych.evaluation.choosing import sample as sampling
from diptych.evaluation.choosing.candidates import candidates, kept_prefix, read_origin
from diptych.evaluation.choosing.sample import read_sample, shared_views, view_features
from diptych.evaluation.choosing.select import DEFAULT, TRUST, select
from diptych.evaluation.choosing.select_text import as_text
from diptych.evaluation.choosing.unlabelled import METRICS, clid, measure
from diptych.frozen import load
from diptych.methods import METHODS, PatchesConfig
from diptych.progress import Terminal
from diptych.runs import RunFolder
from diptych.training import loop
from diptych.training.config import RunConfig
from diptych.training.order import Order, fitted_to_pixels
from diptych.training.run import pretrain
from diptych.views.config import ViewsConfig

COUNT = 24
DINO = {"projector_width": 16, "projector_dim": 8, "prototypes": 12}


def train(data, out, method="simsiam", *, image_size=16, keep):
    config = tiny.config(data, epochs=2, batch_size=8)
    if method != "simsiam":
        config = replace(config, method=METHODS[method](**DINO))
    config = replace(config, image_size=image_size, care=replace(config.care, keep=keep))
    pretrain(Order(config=config, recipe="none"), out, device="cpu")
    return out


@pytest.fixture(scope="module", autouse=True)
def few_views():
    """Two views of a picture: ten of them show nothing more here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "VIEWS_EACH", 2)
        yield


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return tiny.flat(tmp_path_factory.mktemp("data") / "pictures", COUNT)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, pictures):
    """SimSiam with a checkpoint after each step, and DINO at another size with its last one alone."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CHECKPOINT_SECONDS", 0)
        train(pictures, root / "simsiam", keep=4)
    train(pictures, root / "dino", "dino", image_size=24, keep=1)
    return root / "simsiam", root / "dino"


@pytest.fixture(scope="module")
def chosen(runs):
    """What came of choosing between both runs, and what the run folders held before and after."""
    before = [tiny.tree(run) for run in runs]
    found = select(runs, metric="rankme", seed=3, device="cpu")
    return found, before, [tiny.tree(run) for run in runs]


def copied(run, to):
    shutil.copytree(run, to, symlinks=True)
    return to


def edited(run, to, change):
    """A copy of a run whose run.json says something else."""
    copied(run, to)
    card = json.loads((to / "run.json").read_text())
    change(card)
    (to / "run.json").write_text(json.dumps(card))
    return to


# What a run offers


@pytest.mark.parametrize("method", METHODS)
def test_the_kept_network_is_found_in_the_checkpoints_of_every_method(method):
    backbone = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    few = {"prototypes": 12} if method in ("dino", "swav") else {}
    made = METHODS[method](projector_width=16, **few).build(backbone, 6)
    begin = kept_prefix(method)
    kept = {name.removeprefix(begin): w for name, w in made.state_dict().items() if name.startswith(begin)}
    expected = made.kept.state_dict()
    assert kept.keys() == expected.keys() and len(kept) == 2
    assert all(kept[name].data_ptr() == expected[name].data_ptr() for name in kept)


def test_a_run_offers_its_checkpoints_in_order_and_its_backbone_once(runs):
    found = list(candidates(read_origin(runs[0]), "cpu", pytest.fail))
    assert [(one.name, one.step, one.finished) for one in found] == [
        *((f"step-{step:06}", step, False) for step in (3, 4, 5)),
        ("step-000006", 6, True),
    ]
    assert {one.backbone.num_features for one in found} == {load(runs[0], "cpu").num_features}
    images = torch.randint(256, (3, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(found[-1].backbone.embed(images), load(runs[0], "cpu").embed(images))
    assert not torch.allclose(found[0].backbone.embed(images), found[-1].backbone.embed(images))


def test_a_backbone_of_which_no_checkpoint_is_left_stands_by_itself(runs, tmp_path):
    run = copied(runs[0], tmp_path / "run")
    (run / "checkpoints" / "last").unlink()
    shutil.rmtree(run / "checkpoints" / "step-000006")
    found = list(candidates(read_origin(run), "cpu", pytest.fail))
    assert [(one.name, one.finished) for one in found][-2:] == [("step-000005", False), ("backbone", True)]


def test_the_teacher_of_dino_is_what_a_checkpoint_offers(runs):
    (found,) = candidates(read_origin(runs[1]), "cpu", pytest.fail)
    assert found.finished and found.name == "step-000006"


def test_an_unfinished_run_offers_its_checkpoints_and_a_damaged_one_is_left_out(runs, tmp_path):
    run = copied(runs[0], tmp_path / "run")
    (run / "backbone.json").unlink()
    (run / "checkpoints" / "step-000004" / "weights.safetensors").write_bytes(b"cut short")
    said = []
    found = list(candidates(read_origin(run), "cpu", said.append))
    assert [one.step for one in found] == [3, 5, 6] and not any(one.finished for one in found)
    assert len(said) == 1 and "step-000004 is left out: " in said[0] and "damaged" in said[0]


def test_a_checkpoint_of_another_network_is_left_out(runs, tmp_path):
    run = edited(runs[0], tmp_path / "run", lambda card: card["config"].update(backbone="resnet56v2"))
    said = []
    assert [one.name for one in candidates(read_origin(run), "cpu", said.append)] == ["backbone"]
    assert len(said) == 4 and all("belongs to another network than" in line for line in said)


def test_a_run_without_gradients_and_of_other_channels_is_ranked_too(runs, pictures, tmp_path):
    small = {"batch_size": 8, "image_size": 16, "channels": 1, "backbone": "patches:8", "mean": (0.5,), "std": (0.3,)}
    config = with_settings(RunConfig(data=str(pictures), method=PatchesConfig(), backbone="patches:8"), small)
    config, _ = fitted_to_pixels(config, {})
    pretrain(Order(config=config, recipe="none"), tmp_path / "patches", device="cpu")
    found = select([runs[1], tmp_path / "patches"], device="cpu")
    dino, patches = found.runs
    (scored,) = patches.checkpoints
    assert (scored.checkpoint, scored.step, scored.finished, scored.features) == ("backbone", None, True, 72)
    assert {dino.rank, patches.rank} == {1, 2} and scored.values["lidar"] > 1
    assert not any("patches offers" in note for note in found.notes)
    assert any("feature vectors of different lengths" in note for note in found.notes)
    assert f"{tmp_path / 'patches'}  backbone" in as_text(found)


# The pictures and the views


def test_all_runs_embed_the_same_pictures_each_at_its_own_size(runs, pictures):
    origins = [read_origin(run) for run in runs]
    sample = read_sample(origins, None, None, 20, 5, Terminal(quiet=True), pytest.fail)
    small, large = (sample.images[origin.format] for origin in origins)
    assert small.shape == (20, 3, 16, 16) and large.shape == (20, 3, 24, 24) and sample.count == 20
    shrunk = torch.nn.functional.interpolate(large.float(), 16, mode="bilinear", antialias=True)
    apart = torch.cdist(small.float().flatten(1), shrunk.flatten(1))
    assert apart.argmin(dim=1).tolist() == list(range(20))
    again = read_sample(origins[:1], None, None, 20, 5, Terminal(quiet=True), pytest.fail)
    other = read_sample(origins[:1], None, None, 20, 6, Terminal(quiet=True), pytest.fail)
    assert torch.equal(again.images[origins[0].format], small)
    assert not torch.equal(other.images[origins[0].format], small)


def test_a_picture_that_cannot_be_read_is_left_out_and_told(runs, pictures, tmp_path):
    data = shutil.copytree(pictures, tmp_path / "pictures")
    (data / "03.png").write_bytes(b"no picture")
    Image.new("CMYK", (16, 16)).save(data / "04.tif")
    said = []
    origins = [read_origin(run) for run in runs]
    sample = read_sample(origins, str(data), None, 2000, 0, Terminal(quiet=True), said.append)
    assert sample.count == len(list(data.iterdir())) - 1
    (line,) = said
    assert line.startswith("1 pictures could not be read and are left out (first 03.png")


def test_of_shards_the_first_pictures_are_looked_at(runs, pictures, tmp_path):
    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as shard:
            for path in sorted(pictures.iterdir())[12 * number : 12 * number + 12]:
                shard.add(path, path.name)
    said = []
    (origin,) = [read_origin(runs[0])]
    sample = read_sample([origin], f"{tmp_path}/{{0..1}}.tar", None, 20, 0, Terminal(quiet=True), said.append)
    whole = read_sample([origin], None, None, 24, 0, Terminal(quiet=True), pytest.fail)
    assert torch.equal(sample.images[origin.format], whole.images[origin.format][:20])
    assert len(said) == 1 and said[0].startswith("the first 20 pictures of ")


def test_views_are_the_runs_own_where_these_agree_and_the_same_for_all(runs, tmp_path):
    simsiam, dino = map(read_origin, runs)
    views, told = shared_views([simsiam, dino])
    assert told == "as the runs were trained with" and views.crop_scale == simsiam.views.crop_scale
    other = replace(dino, views=replace(dino.views, vertical_flip=0.5))
    mixed, told = shared_views([simsiam, other])
    assert "different" in told and mixed == replace(ViewsConfig(), mean=(), std=())
    assert shared_views([simsiam, replace(other, method="patches")])[0] == views
    assert shared_views([replace(other, method="patches")])[0].vertical_flip == 0.5
    many = replace(simsiam, views=replace(simsiam.views, global_views=4, local_views=2, local_size=8))
    assert shared_views([simsiam, many])[0] == views


def test_views_are_made_alike_in_parts_and_for_every_checkpoint(runs, monkeypatch):
    origin = read_origin(runs[0])
    first, *_, last = candidates(origin, "cpu", pytest.fail)
    images = torch.randint(256, (20, 3, 16, 16), dtype=torch.uint8)
    views, _ = shared_views([origin])
    whole = view_features(last.backbone, images, views, 4)
    assert whole.shape == (20, 2, last.backbone.num_features) and not torch.equal(whole[:, 0], whole[:, 1])
    monkeypatch.setattr(sampling, "AT_ONCE", 7)
    assert torch.allclose(view_features(last.backbone, images, views, 4), whole, atol=1e-5)
    monkeypatch.setattr(sampling, "VIEWED", 9)
    assert view_features(last.backbone, images, views, 4).shape[0] == 9
    assert not torch.allclose(view_features(first.backbone, images, views, 4), whole[:9], atol=1e-3)
    still = replace(views, crop_scale=(1, 1), crop_ratio=(1, 1), horizontal_flip=0, jitter=0, grayscale=0, blur=0)
    plain = view_features(last.backbone, images, still, 4)
    assert torch.allclose(plain[:, 1], last.backbone.embed(images[:9]), atol=1e-4)  # normalised as the run has it


# Choosing


def test_every_checkpoint_has_every_metric_of_its_own_features(chosen, runs):
    found, *_ = chosen
    origins = [read_origin(run) for run in runs]
    sample = read_sample(origins, None, None, 2000, 3, Terminal(quiet=True), pytest.fail)
    views, _ = shared_views(origins)
    expected = []
    for origin in origins:
        for one in candidates(origin, "cpu", pytest.fail):
            images = sample.images[origin.format]
            expected.append(measure(one.backbone.embed(images), view_features(one.backbone, images, views, 3), 3))
    joined = clid([e["learnability"] for e in expected], [e["dimension"] for e in expected])
    scored = [one for ranking in found.runs for one in ranking.checkpoints]
    assert len(scored) == 5 and found.pictures == COUNT
    for one, values, added in zip(scored, expected, joined, strict=True):
        assert list(one.values) == list(METRICS)
        assert one.values == pytest.approx(values | {"clid": added})


def test_checkpoints_and_runs_are_ranked_by_the_metric(chosen, runs):
    found, *_ = chosen
    for ranking in found.runs:
        best_first = sorted(ranking.checkpoints, key=lambda one: -one.values["rankme"])
        assert [one.rank for one in best_first] == list(range(1, len(best_first) + 1))
        assert ranking.best == best_first[0]
    first, second = sorted(found.runs, key=lambda ranking: ranking.rank)
    assert (first.rank, second.rank) == (1, 2)
    assert first.best.values["rankme"] > second.best.values["rankme"]
    assert (found.run, found.checkpoint) == (first.run, first.best.checkpoint)
    assert [ranking.run for ranking in found.runs] == [str(run) for run in runs]
    assert [ranking.method for ranking in found.runs] == ["simsiam", "dino"]


def test_the_sentence_names_the_choice_the_next_and_the_trust(chosen):
    found, *_ = chosen
    values = sorted((one.values["rankme"] for r in found.runs for one in r.checkpoints), reverse=True)
    assert found.sentence.startswith(f"RankMe chooses {found.checkpoint} of {found.run}: RankMe {values[0]:.4g}, ")
    assert "next of 5 comes step-" in found.sentence and f"RankMe {values[1]:.4g}" in found.sentence
    assert found.sentence.endswith(f"How far RankMe can be trusted: {TRUST['rankme']}.")
    assert found.trust == TRUST["rankme"]


def test_choosing_writes_nothing_and_comes_to_the_same_again_in_other_company(chosen, runs):
    found, before, after = chosen
    assert before == after
    (alone,) = select(runs[1:], metric="rankme", seed=3, data=found.data, device="cpu").runs[0].checkpoints
    (joined,) = found.runs[1].checkpoints
    assert alone.values | {"clid": None} == alone.values
    assert joined.values == alone.values | {"clid": joined.values["clid"]}


def test_to_dict_is_json_with_a_schema_version(chosen):
    found, *_ = chosen
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert written["schema_version"] == 1 and written["runs"][1]["checkpoints"][0]["finished"] is True
    assert written["runs"][0]["checkpoints"][2]["values"]["rankme"] == found.runs[0].checkpoints[2].values["rankme"]


def test_a_table_has_a_line_for_each_checkpoint_best_run_first(chosen, runs):
    found, *_ = chosen
    lines = as_text(found).splitlines()
    assert lines[0] == found.sentence
    assert lines[2].split()[:3] == ["run", "checkpoint", "rank"] and "near 1" in lines[3]
    best = [ranking.run for ranking in sorted(found.runs, key=lambda ranking: ranking.rank)]
    rows = lines[5:10]
    assert [row.split()[0] for row in rows] == sorted((str(runs[0]),) * 4 + (str(runs[1]),), key=best.index)
    assert sum("(finished)" in row for row in rows) == 2
    assert any(
        line == f"Note: {runs[1]} offers step-000006 alone: pretrain with --keep N to keep N checkpoints"
        for line in lines
    )


def test_a_run_alone_is_chosen_from_and_clid_has_nothing_to_compare(runs):
    found = select([runs[1]], device="cpu", pictures=16)
    assert found.metric == DEFAULT and found.sentence.endswith("; there is no other.") and found.pictures == 16
    assert found.runs[0].best.values["clid"] is None
    with pytest.raises(ConfigError, match="clid compares several, and there is one: choose another, such as rankme"):
        select([runs[1]], metric="clid", device="cpu")


def test_a_checkpoint_that_diverged_is_left_out(runs, tmp_path):
    run = copied(runs[0], tmp_path / "run")
    point = checkpoint.load(run / "checkpoints" / "step-000005")
    weights = {name: torch.full_like(w, torch.nan) if w.is_floating_point() else w for name, w in point.weights.items()}
    checkpoint.save(run / "checkpoints", weights, point.state, replace(point.progress, step=99), keep=9)
    found = select([run], device="cpu")
    assert [one.step for one in found.runs[0].checkpoints] == [3, 4, 5, 6]
    assert any("step-000099" in note and "not finite" in note for note in found.notes)


# Bad input


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"metric": "rankmee"}, "unknown metric 'rankmee'; did you mean 'rankme'?"),
        ({"pictures": 15}, "--pictures must be 16 or more, not 15"),
        ({"seed": -1}, "--seed must be 0 or more, not -1"),
        ({"data": "nowhere"}, "there is no nowhere"),
    ],
)
def test_arguments_out_of_range_are_refused(runs, arguments, told):
    with pytest.raises((ConfigError, DataError), match=told.replace("?", r"\?")):
        select(runs, device="cpu", **arguments)


def test_what_is_no_run_or_has_nothing_yet_is_refused(runs, tmp_path):
    with pytest.raises(ConfigError, match="type `diptych select RUN`"):
        select([])
    with pytest.raises(RunFolderError, match="there is no run folder"):
        select([tmp_path / "none"])
    with pytest.raises(RunFolderError, match="is the same folder as"):
        select([runs[0], runs[0].parent / "." / "simsiam"])
    run = copied(runs[0], tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    (run / "backbone.json").unlink()
    with pytest.raises(RunFolderError, match="nothing to choose from: go on with `diptych pretrain --resume"):
        select([run])
    other = edited(runs[0], tmp_path / "other", lambda card: card.update(config=None))
    with pytest.raises(RunFolderError, match="run.json is damaged, or another version"):
        select([other])


def test_pictures_that_are_gone_or_differ_are_told_with_the_way_on(runs, pictures, tmp_path):
    moved = edited(runs[1], tmp_path / "moved", lambda card: card["config"].update(data=str(tmp_path / "gone")))
    with pytest.raises(DataError, match="learned from cannot be opened .* with --data DIR"):
        select([moved], device="cpu")
    assert select([moved], data=str(pictures), device="cpu", pictures=16).pictures == 16
    other = edited(runs[1], tmp_path / "other", lambda card: card["data"].update(fingerprint="0"))
    with pytest.raises(DataError, match="learned from different pictures: name those .* with --data DIR"):
        select([runs[0], other], device="cpu")
    found = select([other], device="cpu")
    assert any("have changed since" in note for note in found.notes)
    tiles = edited(runs[1], tmp_path / "tiles", lambda card: card["config"].update(tile=8))
    with pytest.raises(DataError, match="tiles of different sizes"):
        select([runs[0], tiles], device="cpu", data=str(pictures))
    few = tiny.flat(tmp_path / "few", 5)
    with pytest.raises(DataError, match="choosing takes 16 pictures or more, and .* gives 5"):
        select(runs, device="cpu", data=str(few))


def test_steps_written_twice_are_told_apart(runs, tmp_path):
    run = copied(runs[0], tmp_path / "run")
    folder = run / "checkpoints"
    (folder / "step-000005").rename(folder / "step-000005.2")
    (folder / "step-000004").rename(folder / "step-000010")
    assert [path.name for path in offers._steps(RunFolder(run))] == [
        "step-000003",
        "step-000005.2",
        "step-000006",
        "step-000010",
    ]
