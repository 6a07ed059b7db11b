"""The estimators against scikit-learn's own rules, and their numbers against the parts that they are made of."""

import json
import pickle

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from diptych.errors import ConfigError, DataError, RunFolderError
from diptych.evaluation.features import Features
from diptych.evaluation.probes.linear import fit_linear
from diptych.frozen import BackboneCard, Preprocessing, initial_backbone, load, save_backbone
from diptych.runs import RunFolder, write_json
from diptych.sklearn import Embedder, PretrainedClassifier

SIZE = 16
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


@pytest.mark.parametrize("estimator", [Embedder, PretrainedClassifier])
def test_scikit_learns_own_checks(run, estimator):
    """All that it can check without pictures: parameters, tags, clones, texts; it says that it skips the rest."""
    with pytest.warns(match="requires input"):
        found = check_estimator(estimator(run), on_fail="warn", on_skip=None)
    assert not [check for check in found if check["status"] == "failed"]


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


@pytest.mark.parametrize("spoil", ["absent", "text", "plain", "cut", "other"])
def test_a_file_that_is_no_classifier(tmp_path, fitted, spoil):
    path = tmp_path / "classifier.safetensors"
    if spoil == "text":
        path.write_text("hello")
    if spoil == "plain":
        save_file({"coef": torch.zeros(1)}, path)
    if spoil == "cut":
        path.write_bytes(fitted.save(tmp_path / "whole").read_bytes()[:-100])
    if spoil == "other":
        tensors = load_file(fitted.save(tmp_path / "whole"))
        save_file(tensors, path, {"diptych.classifier": json.dumps({"schema_version": 99})})
    with pytest.raises(DataError, match="give a run folder, or a file that PretrainedClassifier.save wrote"):
        PretrainedClassifier.load(path)


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
    ],
)
def test_bad_input_is_told(run, X, y, told):
    with pytest.raises(DataError, match=told):
        PretrainedClassifier(run).fit(X, y)


def test_a_run_or_features_that_are_not_there(tmp_path, run, pictures):
    with pytest.raises(RunFolderError, match="there is no run folder"):
        Embedder(tmp_path / "none").fit(pictures)
    with pytest.raises(ConfigError, match="did you mean 'pooled'"):
        Embedder(run, features="poled").fit(pictures)
