"""The estimators' numbers against the parts that they are made of, and what they are told that they cannot use."""

import json
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from diptych.errors import ConfigError, DataError, RunFolderError
from diptych.evaluation.features import Features
from diptych.evaluation.probes.linear import fit_linear
from diptych.frozen import BackboneCard, Preprocessing, initial_backbone, load, save_backbone
from diptych.runs import RunFolder, write_json
from diptych.sklearn import Embedder, PretrainedClassifier

SIZE = 16
SPOILT = {
    "a bit": lambda words, tensors: tensors["backbone.stem.0.weight"].view(torch.int32).flatten()[0].bitwise_xor_(1),
    "no probe": lambda words, tensors: tensors.pop("coef"),
    "no layer": lambda words, tensors: tensors.pop("backbone.stem.0.weight"),
    "narrow": lambda words, tensors: tensors.update(coef=torch.zeros(3, 5)),
    "classes": lambda words, tensors: words["classes"].pop(),
    "no classes": lambda words, tensors: words.pop("classes"),
    "settings": lambda words, tensors: words["settings"].update(colour="red"),
    "features": lambda words, tensors: words["settings"].update(features="poled"),
    "no backbone": lambda words, tensors: words["backbone"].update(backbone="resnet19v2"),
    "no list": lambda words, tensors: words.update(settings=None),
}
"""What a file may have wrong inside, by name."""
NAMES = np.array(["cat", "dog", "owl"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = RunFolder.create(tmp_path_factory.mktemp("runs") / "run")
    write_json(folder.config, {"schema_version": 1})
    module, width, _ = initial_backbone("resnet20v2", SIZE, 3)
    card = BackboneCard(
        schema_version=1,
        backbone="resnet20v2",
        num_features=width,
        seed=3,
        preprocessing=Preprocessing(image_size=SIZE, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)),
    )
    save_backbone(folder, module, card)
    return str(folder.path)


@pytest.fixture(scope="module")
def pictures():
    """60 pictures whose class is their brightest channel, so that a probe can learn it: uint8 (60, 16, 16, 3)."""
    found = np.stack([tiny.picture(seed) // 2 for seed in range(60)])
    for place, picture in enumerate(found):
        picture[..., place % 3] += 100
    return found


@pytest.fixture(scope="module")
def labels():
    return NAMES[np.arange(60) % 3]


@pytest.fixture(scope="module")
def fitted(run, pictures, labels):
    return PretrainedClassifier(run).fit(pictures[:48], labels[:48])


@pytest.fixture(scope="module")
def paths(tmp_path_factory, pictures):
    folder = tmp_path_factory.mktemp("pictures")
    for place, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{place:02}.png")
    return sorted(str(path) for path in folder.iterdir())


def test_features_are_those_of_the_backbone_whatever_pictures_come_as(run, pictures, paths):
    wanted = load(run).embed(torch.from_numpy(pictures).permute(0, 3, 1, 2)).numpy()
    embedder = Embedder(run, batch_size=7).fit(pictures)
    opened = [Image.open(path) for path in paths]
    for given in (pictures, list(pictures), paths, np.array(paths), np.array(paths, dtype=object), opened):
        found = embedder.transform(given)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    assert list(embedder.get_feature_names_out()[:2]) == ["embedder0", "embedder1"]
    assert len(embedder.get_feature_names_out()) == wanted.shape[1]


def test_another_choice_of_features(run, pictures):
    grid = Embedder(run, features="grid").fit(pictures[:1])
    assert grid.transform(pictures[:2]).shape == (2, 4 * Embedder(run).fit_transform(pictures[:1]).shape[1])
    numbered = Embedder(run, layer=0).fit(pictures[:1]).transform(pictures[:2])
    np.testing.assert_array_equal(numbered, Embedder(run, layer="0").fit(pictures[:1]).transform(pictures[:2]))
    inner = Embedder(run, layer="group1").fit(pictures[:1]).transform(pictures[:2])
    assert inner.shape == (2, len(Embedder(run, layer="0").fit_transform(pictures[:1])[0]) * 4)


def test_the_classifier_is_the_probe_of_evaluate(run, pictures, labels, fitted):
    backbone = load(run)
    train, test = (torch.from_numpy(part).permute(0, 3, 1, 2) for part in (pictures[:48], pictures[48:]))
    features = Features(backbone.embed(train).clone(), torch.arange(48) % 3)
    wanted = fit_linear(features, backbone.embed(test), 3, seed=0)
    np.testing.assert_allclose(fitted.decision_function(pictures[48:]), wanted.logits, rtol=1e-3, atol=1e-3)
    assert fitted.l2_ == wanted.l2 and list(fitted.classes_) == list(NAMES)
    told = fitted.predict_proba(pictures[48:])
    np.testing.assert_allclose(told.sum(axis=1), 1, rtol=1e-5)
    assert (fitted.predict(pictures[48:]) == NAMES[told.argmax(axis=1)]).all()
    assert fitted.score(pictures[48:], labels[48:]) == 1


def test_the_classifier_against_scikit_learn_at_the_strength_it_chose(run, pictures, labels, fitted):
    embedder = Embedder(run).fit(pictures)
    scaler = StandardScaler().fit(embedder.transform(pictures[:48]))
    reference = LogisticRegression(C=1 / (fitted.l2_ * 48), tol=1e-8, max_iter=5000)
    reference.fit(scaler.transform(embedder.transform(pictures[:48])), labels[:48])
    wanted = reference.predict_proba(scaler.transform(embedder.transform(pictures[48:])))
    np.testing.assert_allclose(fitted.predict_proba(pictures[48:]), wanted, atol=5e-3)


def test_no_more_than_a_batch_of_pictures_is_decoded_at_a_time(run, pictures):
    embedder = Embedder(run, batch_size=7).fit(pictures)
    wanted = embedder.transform(pictures)
    backbone, card = embedder._opened
    met = []

    class Counting:
        def embed(self, images, *others):
            met.append(len(images))
            return backbone.embed(images, *others)

    embedder._opened = (Counting(), card)
    np.testing.assert_array_equal(embedder.transform(pictures), wanted)
    assert met == [7] * 8 + [4]
    assert embedder.transform([]).shape == (0, wanted.shape[1])


def test_two_classes_have_one_decision_value(run, pictures):
    answers = np.arange(60) % 3 == 0
    found = PretrainedClassifier(run).fit(pictures, answers)
    assert found.decision_function(pictures).shape == (60,)
    assert ((found.decision_function(pictures) > 0) == found.predict(pictures)).all()


def test_a_pipeline_a_search_and_cross_validation(run, paths, labels):
    pipeline = make_pipeline(Embedder(run), StandardScaler(), LogisticRegression(max_iter=500))
    assert pipeline.fit(paths, labels).score(paths, labels) == 1
    search = GridSearchCV(PretrainedClassifier(run), {"features": ["pooled", "grid"]}, cv=2).fit(paths, labels)
    assert search.best_score_ > 0.9
    assert (cross_val_predict(PretrainedClassifier(run), paths, labels, cv=3) == labels).mean() > 0.9


def test_saved_without_pickle_and_without_the_run(tmp_path, run, pictures, fitted):
    path = fitted.save(tmp_path / "classifier.safetensors")
    moved = PretrainedClassifier(run, batch_size=5)
    assert moved.get_params() == fitted.get_params() | {"batch_size": 5}
    found = PretrainedClassifier.load(path)
    np.testing.assert_array_equal(found.predict(pictures), fitted.predict(pictures))
    np.testing.assert_allclose(found.predict_proba(pictures), fitted.predict_proba(pictures), atol=1e-6)
    again = found.save(tmp_path / "again.safetensors")
    assert again.read_bytes() == path.read_bytes()
    fresh = clone(found).fit(pictures[:6], [0, 1, 2] * 2)  # its backbone is in the file
    assert list(fresh.classes_) == [0, 1, 2]


def test_settings_that_a_search_set_can_be_saved(tmp_path, run, pictures, labels, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    found = PretrainedClassifier(run, seed=np.int64(3), batch_size=np.int64(8), features=np.str_("pooled"), layer=1)
    path = found.fit(pictures[:12], labels[:12]).save("~/classifier.safetensors")
    assert path == tmp_path / "classifier.safetensors"
    again = PretrainedClassifier.load("~/classifier.safetensors")
    assert again.get_params() == found.get_params() | {"run": str(path)}
    np.testing.assert_array_equal(again.predict_proba(pictures), found.predict_proba(pictures))


def test_tables_of_pandas(run, paths, labels):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"path": paths, "name": labels}, index=range(100, 160))
    found = Embedder(run).set_output(transform="pandas").fit_transform(table["path"])
    assert list(found.index) == list(table.index) and found.columns[0] == "embedder0"
    np.testing.assert_array_equal(found.to_numpy(), Embedder(run).fit_transform(paths))
    classifier = PretrainedClassifier(run).fit(table["path"], table["name"].astype("category"))
    assert list(classifier.classes_) == list(NAMES)
    missing = table["name"].astype(object)
    missing.iloc[5] = None
    with pytest.raises(DataError, match="all texts or all whole numbers"):
        PretrainedClassifier(run).fit(table["path"], missing)


def test_the_snippet_of_the_docs_runs_as_written(tmp_path, run, paths, labels, pictures, monkeypatch):
    text = (Path(__file__).parents[1] / "docs" / "using.md").read_text()
    (code,) = re.findall(r"## From scikit-learn\n.*?```python\n(.*?)```", text, re.DOTALL)
    shutil.copytree(run, tmp_path / "runs" / "mine")
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pictures[0]).save("new.jpg")
    found = {"paths": paths, "names": labels}
    exec(compile(code, "using.md", "exec"), found)
    assert found["pipeline"].score(paths, labels) == 1
    shutil.rmtree(tmp_path / "runs")
    told = PretrainedClassifier.load("classifier.safetensors").predict_proba(["new.jpg"])
    np.testing.assert_allclose(told, found["classifier"].predict_proba(["new.jpg"]), atol=1e-6)


def test_weights_that_changed_since_fit_are_refused(tmp_path, run, pictures, labels):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    fitted = PretrainedClassifier(folder).fit(pictures[:12], labels[:12])
    embedder = Embedder(folder).fit(pictures)
    copies = [pickle.dumps(fitted), pickle.dumps(embedder)]
    weights = load_file(folder / "backbone.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, folder / "backbone.safetensors")
    for copy, call in zip(copies, ("predict", "transform"), strict=True):
        with pytest.raises(DataError, match="has other weights than when fit"):
            getattr(pickle.loads(copy), call)(pictures)
    assert fitted.predict(pictures).shape == (60,)  # it has them still
    assert clone(fitted).fit(pictures[:12], labels[:12]).predict(pictures).shape == (60,)


def test_a_pickled_estimator_leaves_the_network_behind(run, pictures, fitted):
    bytes_of = pickle.dumps(fitted)
    assert len(bytes_of) < 20_000
    np.testing.assert_array_equal(pickle.loads(bytes_of).predict(pictures), fitted.predict(pictures))


def test_nothing_is_overwritten_silently(tmp_path, fitted):
    path = tmp_path / "mine.safetensors"
    path.write_text("mine")
    with pytest.raises(DataError, match="is there already: choose another name"):
        fitted.save(path)
    assert path.read_text() == "mine"
    assert PretrainedClassifier.load(fitted.save(path, overwrite=True)).l2_ == fitted.l2_


@pytest.mark.parametrize("spoil", ["absent", "text", "plain", "cut", "other", "unnamed", *SPOILT])
def test_a_file_that_is_no_classifier(tmp_path, fitted, spoil):
    path = tmp_path / "classifier.safetensors"
    if spoil == "text":
        path.write_text("hello")
    if spoil == "plain":
        save_file({"coef": torch.zeros(1)}, path)
    if spoil == "cut":
        path.write_bytes(fitted.save(tmp_path / "whole").read_bytes()[:-100])
    if spoil == "unnamed":
        save_file({"coef": torch.zeros(1)}, path, {"format": "pt"})
    if spoil in SPOILT:
        whole = fitted.save(tmp_path / "whole")
        with safe_open(whole, "pt") as file:
            words = json.loads(file.metadata()["diptych.classifier"])
        tensors = load_file(whole)
        SPOILT[spoil](words, tensors)
        save_file(tensors, path, {"diptych.classifier": json.dumps(words)})
    if spoil == "other":
        tensors = load_file(fitted.save(tmp_path / "whole"))
        save_file(tensors, path, {"diptych.classifier": json.dumps({"schema_version": 99})})
    with pytest.raises(DataError, match="give a run folder, or a file that PretrainedClassifier.save wrote") as told:
        PretrainedClassifier.load(path)
    assert "\n" not in str(told.value) and "subscriptable" not in str(told.value)


def test_before_fit(run, pictures):
    with pytest.raises(NotFittedError):
        Embedder(run).transform(pictures)
    with pytest.raises(NotFittedError):
        PretrainedClassifier(run).predict(pictures)


@pytest.mark.parametrize(
    ("X", "y", "told"),
    [
        ("a.jpg", ["cat"], r"give a list of pictures: \['a.jpg'\]"),
        (Image.new("RGB", (8, 8)), ["cat"], "not a single one"),
        (np.zeros((4, 12)), [0, 1, 0, 1], r"an array \(N, H, W, C\), or \(N,\) of paths, not float64 \(4, 12\)"),
        (np.zeros((2, 16, 16, 3), np.uint8), ["cat"], "2 pictures and 1 labels"),
        (np.zeros((2, 16, 16, 3), np.uint8), ["cat", "cat"], "two classes or more"),
        (np.zeros((2, 16, 16, 3), np.uint8), [0.5, 1.5], "all texts or all whole numbers, not float64"),
        (np.zeros((2, 16, 16, 3), np.uint8), np.array(["cat", 1], dtype=object), "all texts or all whole numbers"),
        (np.zeros((2, 16, 16, 3), np.uint8), ["cat", "dog"], "label two or more of each"),
        (np.zeros((2, 16, 16, 3), np.uint8), ["cat", 1], "all texts, all whole numbers or all truth values"),
        (np.zeros((2, 16, 16, 3), np.uint8), ["cat", np.nan], "all texts, all whole numbers or all truth values"),
        (np.zeros((2, 16, 16, 3), np.uint8), [True, 2], "all texts, all whole numbers or all truth values"),
        (np.zeros((2, 16, 16, 3), np.uint8), [0.0, np.nan], "all texts or all whole numbers, not float64"),
        (np.zeros((2, 16, 16, 3), np.uint8), [["cat"], ["cat", "dog"]], "got several for some"),
        (["a.jpg", None], ["cat", "dog"], "number 1 is a NoneType"),
        ([b"a.jpg"], ["cat"], "number 0 is a bytes"),
        ([3, 4], ["cat", "dog"], r"paths, Pillow pictures or arrays \(H, W, C\), and number 0 is a int"),
    ],
)
def test_bad_input_is_told(run, X, y, told):
    with pytest.raises(DataError, match=told) as found:
        PretrainedClassifier(run).fit(X, y)
    assert "\n" not in str(found.value)


def test_whole_numbers_may_be_floats_as_tables_have_them(run, pictures):
    found = PretrainedClassifier(run).fit(pictures[:6], [1.0, 2.0, 7.0] * 2)
    assert list(found.classes_) == [1, 2, 7] and found.classes_.dtype == np.int64


@pytest.mark.parametrize(
    ("setting", "told"), [({"batch_size": 0}, "--batch-size must be 1 or more"), ({"seed": -1}, "--seed must be 0 or")]
)
def test_settings_out_of_range_are_told(run, pictures, setting, told):
    with pytest.raises(ConfigError, match=told):
        PretrainedClassifier(run, **setting).fit(pictures[:6], [0, 1, 2] * 2)


def test_a_run_or_features_that_are_not_there(tmp_path, run, pictures):
    with pytest.raises(RunFolderError, match="there is no run folder"):
        Embedder(tmp_path / "none").fit(pictures)
    with pytest.raises(ConfigError, match="did you mean 'pooled'"):
        Embedder(run, features="poled").fit(pictures)
