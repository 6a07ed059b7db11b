"""All of scikit-learn's own checks, which make tables of numbers, on estimators that draw each row as a picture."""

import numpy as np
import pytest
from sklearn.exceptions import SkipTestWarning
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_array

from diptych.frozen import BackboneCard, Preprocessing, initial_backbone, save_backbone
from diptych.runs import RunFolder, write_json
from diptych.sklearn import Embedder, PretrainedClassifier

SIZE = 8
BATCHES = "a network in float32 gives the same, in a batch of another size, to six digits of its largest number"
FAIL = {
    "check_transformer_general": "pictures may have any size, and so rows any length",
    "check_methods_subset_invariance": BATCHES,
    "check_methods_sample_order_invariance": BATCHES,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = RunFolder.create(tmp_path_factory.mktemp("runs") / "run")
    write_json(folder.config, {"schema_version": 1})
    module, width, _ = initial_backbone("resnet11v2", SIZE, 3)
    made = Preprocessing(image_size=SIZE, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    card = BackboneCard(schema_version=1, backbone="resnet11v2", num_features=width, seed=3, preprocessing=made)
    save_backbone(folder, module, card)
    return str(folder.path)


def drawn(X):
    """Pictures ``(N, 8, 8, 3)`` uint8 whose lines are the numbers of a row, again and again."""
    lines = (128 + 40 * check_array(X, dtype="float32")).clip(0, 255).astype(np.uint8).repeat(3 * SIZE, axis=1)
    return np.stack([np.resize(row, (SIZE, SIZE, 3)) for row in lines])


class Rows:
    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.one_d_array, tags.input_tags.string = True, False, False
        return tags


class RowEmbedder(Rows, Embedder):
    def fit(self, X, y=None):
        return super().fit(drawn(X), y)

    def transform(self, X):
        return super().transform(drawn(X))


class RowClassifier(Rows, PretrainedClassifier):
    def fit(self, X, y):
        return super().fit(drawn(X), y)

    def _logits(self, X):
        return super()._logits(drawn(X))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # of the checks' own making
@pytest.mark.parametrize("kind", [RowEmbedder, RowClassifier])
def test_every_check_is_passed_but_those_that_pictures_do_not_allow(run, kind):
    found = check_estimator(kind(run), on_fail=None, on_skip=None, expected_failed_checks=FAIL)
    assert len(found) > 35
    assert not [(check["check_name"], check["exception"]) for check in found if check["status"] == "failed"]
    # That one needs SCIPY_ARRAY_API in the environment before SciPy is imported.
    assert {check["check_name"] for check in found if check["status"] == "skipped"} <= {"check_array_api_input"}


@pytest.mark.parametrize("kind", [Embedder, PretrainedClassifier])
def test_estimators_that_take_no_tables_are_only_cloned(run, kind):
    with pytest.warns(SkipTestWarning, match="requires input"):
        found = check_estimator(kind(run), on_fail="warn", on_skip=None)
    assert [(check["check_name"], check["status"]) for check in found] == [("check_estimator_cloneable", "passed")]
