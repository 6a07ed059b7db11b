"""Frozen backbones as estimators of scikit-learn, for its pipelines, cross-validation and searches.

>>> from sklearn.pipeline import make_pipeline
>>> from sklearn.svm import SVC
>>> from diptych.sklearn import Embedder, PretrainedClassifier
>>> make_pipeline(Embedder("runs/mine"), SVC()).fit(["cat/1.jpg", "dog/1.jpg"], ["cat", "dog"])
>>> classifier = PretrainedClassifier("runs/mine").fit(paths, names)
>>> classifier.predict_proba(["new.jpg"])
>>> classifier.save("classifier.safetensors")  # weights and words; no pickle, no run folder needed
>>> PretrainedClassifier.load("classifier.safetensors").predict(["new.jpg"])

Pictures are what ``FrozenBackbone.embed`` takes, in any sequence: paths, Pillow pictures, or arrays ``(H, W, C)`` of
any sizes; or one array ``(N, H, W, C)``, or ``(N,)`` of paths.

``check_estimator`` makes tables of numbers, and gives up on estimators that take none: of these it checks that they can
be cloned, and nothing else. So the tests run all of its checks on subclasses that draw each row as a picture. Two are
not passed: that ``transform`` refuses rows of another length than ``fit`` met (pictures may have any size), and that a
batch and its parts give the same to four digits of each number (a network in float32 does, of the largest). Those of
NaN, of the number of columns and of ``y=None`` are skipped, by the tag ``no_validation``: what is not a picture is told
otherwise.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from diptych.backbones.feature_choice import FeatureChoice, parse_choice
from diptych.config import from_dict, to_dict
from diptych.distributed import World, pick_device
from diptych.errors import ConfigError, DataError, check
from diptych.evaluation.features import Features
from diptych.evaluation.probes.linear import fit_planes
from diptych.frozen import (
    BackboneCard,
    FrozenBackbone,
    Picture,
    initial_backbone,
    load,
    open_finished,
    weights_digest,
)
from diptych.runs import SCHEMA_VERSION, writing

Pictures = Sequence[Picture] | NDArray[Any]
WORDS = "diptych.classifier"
"""Where a saved classifier's words stand in its file's metadata, as JSON."""


class InputError(DataError, ValueError):
    """What was given to an estimator cannot be used; a ValueError too, by which scikit-learn tells this."""


class _Embeds(BaseEstimator):  # type: ignore[misc]
    """What both estimators share: a backbone that is opened by ``fit`` and left out of pickles."""

    run: str | Path
    features: str
    layer: str | int | None
    batch_size: int
    device: str
    _opened: tuple[FrozenBackbone, BackboneCard] | None
    _weights: str | None
    """Their hash when ``fit`` was called."""

    def _open(self) -> tuple[FrozenBackbone, BackboneCard]:
        """Return the backbone, opened again where a copy in another process has left it behind.

        Raises:
            InputError: it has other weights by then.
        """
        if getattr(self, "_opened", None) is None:
            if Path(self.run).is_file():
                opened = _Saved(self.run).backbone(self.device)
            else:
                opened = load(self.run, self.device), open_finished(self.run)[1]
            weights = weights_digest(opened[0].module)
            if getattr(self, "_weights", None) not in (None, weights):
                raise InputError(f"{self.run} has other weights than when fit() was called: call fit() again")
            self._opened, self._weights = opened, weights
        assert self._opened is not None
        return self._opened

    def _open_anew(self) -> FrozenBackbone:
        self._opened, self._weights = None, None
        check(self, "1 or more", lambda value: value >= 1, "batch_size")
        return self._open()[0]

    def _choice(self) -> FeatureChoice:
        return parse_choice(self.features, None if self.layer is None else str(self.layer))

    def _embed(self, X: Pictures) -> torch.Tensor:
        pictures, backbone, choice, size = as_pictures(X), self._open()[0], self._choice(), int(self.batch_size)
        starts = range(0, max(len(pictures), 1), size)  # no more than a batch of them is decoded at a time
        return torch.cat([backbone.embed(pictures[at : at + size], size, choice) for at in starts])

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_opened": None}

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = tags.input_tags.string = True  # paths
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, False
        tags.no_validation = True
        return tags


class Embedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, _Embeds):  # type: ignore[misc]
    """Pictures → feature vectors ``(N, D)`` float32, by the backbone of a finished run.

    Nothing is learned from the pictures that ``fit`` is given: it opens the run.

    Args:
        run: the run folder, or a file that ``PretrainedClassifier.save`` wrote.
        features: pooled, multicrop, grid or tokens.
        layer: name or number of an inner layer; None is what the network ends in.
        batch_size: pictures at a time.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
    """

    def __init__(
        self,
        run: str | Path,
        *,
        features: str = "pooled",
        layer: str | int | None = None,
        batch_size: int = 256,
        device: str = "auto",
    ) -> None:
        self.run, self.features, self.layer, self.batch_size, self.device = run, features, layer, batch_size, device

    def fit(self, X: Pictures, y: object = None) -> "Embedder":
        """Open the run. Raises RunFolderError, and ConfigError for features that the network has not."""
        self._n_features_out = self._open_anew().width(self._choice())
        return self

    def transform(self, X: Pictures) -> NDArray[np.float32]:
        """Return the features ``(N, D)`` float32 of N pictures. Raises DataError, BadPicture."""
        check_is_fitted(self)
        values: NDArray[np.float32] = self._embed(X).numpy()
        return values

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_n_features_out")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # float32 whatever pictures come as
        return tags


class PretrainedClassifier(ClassifierMixin, _Embeds):  # type: ignore[misc]
    """A linear probe on the frozen backbone of a run: the one by which ``diptych evaluate`` judges it.

    Logistic regression to convergence on standardised features; its L2 strength is chosen on a stratified fifth of what
    ``fit`` is given.

    Args:
        run: the run folder, or a file that ``PretrainedClassifier.save`` wrote.
        features: pooled, multicrop, grid or tokens.
        layer: name or number of an inner layer; None is what the network ends in.
        seed: of the fifth on which the strength is chosen.
        batch_size: pictures at a time.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Attributes:
        classes_: ``(K,)`` labels, sorted.
        coef_: ``(K, D)`` float32, of the features as they are; ``intercept_``: ``(K,)``.
        l2_: the strength that was chosen.
    """

    def __init__(
        self,
        run: str | Path,
        *,
        features: str = "pooled",
        layer: str | int | None = None,
        seed: int = 0,
        batch_size: int = 256,
        device: str = "auto",
    ) -> None:
        self.run, self.features, self.layer, self.seed = run, features, layer, seed
        self.batch_size, self.device = batch_size, device

    def fit(self, X: Pictures, y: ArrayLike) -> "PretrainedClassifier":
        """Embed the pictures and fit the probe.

        Args:
            X: N pictures.
            y: ``(N,)`` labels: texts, whole numbers or truth values, two different ones or more.

        Raises:
            InputError: there are not as many labels as pictures, one class only, or labels that are no classes.
            RunFolderError: there is no such run, or it has not finished.
        """
        pictures, labels = as_pictures(X), as_labels(y)
        if len(labels) != len(pictures):
            raise InputError(f"{len(pictures)} pictures and {len(labels)} labels: give as many labels as pictures")
        classes, places = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise InputError("fit() needs two classes or more, and the labels are of one class: add another's pictures")
        check(self, "0 or more", lambda value: value >= 0, "seed")
        self._open_anew()
        planes = fit_planes(Features(self._embed(pictures), torch.from_numpy(places)), len(classes), self.seed)
        self.classes_ = classes
        # The scaler is folded into the weights: what is saved is one matrix and one row.
        weights = planes.solution.weights.double() / torch.from_numpy(planes.scaler.scale_)[:, None]
        bias = planes.solution.bias.double() - torch.from_numpy(planes.scaler.mean_) @ weights
        self.coef_, self.intercept_ = weights.T.float().numpy(), bias.float().numpy()
        self.l2_ = planes.l2
        return self

    def decision_function(self, X: Pictures) -> NDArray[np.float32]:
        """Return the logits ``(N, K)`` float32; of two classes ``(N,)``, the second's less the first's."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Pictures) -> NDArray[np.float32]:
        """Return the probabilities ``(N, K)`` float32 of ``classes_``; each row sums to 1."""
        values: NDArray[np.float32] = torch.from_numpy(self._logits(X)).softmax(dim=1).numpy()
        return values

    def predict(self, X: Pictures) -> NDArray[Any]:
        """Return the likeliest label of each picture, ``(N,)``."""
        places = self._logits(X).argmax(axis=1)
        found: NDArray[Any] = self.classes_[places]
        return found

    def _logits(self, X: Pictures) -> NDArray[np.float32]:
        check_is_fitted(self, "coef_")
        values: NDArray[np.float32] = self._embed(X).numpy() @ self.coef_.T + self.intercept_
        return values

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write backbone, probe and classes into one safetensors file, whole or not at all; returns its path.

        Raises:
            DataError: the file is there already, or classes are neither texts, whole numbers nor truth values.
        """
        check_is_fitted(self, "coef_")
        path = Path(os.path.expanduser(path))
        if os.path.lexists(path) and not overwrite:
            raise DataError(f"{path} is there already: choose another name, or give overwrite=True")
        backbone, card = self._open()
        tensors = {f"backbone.{name}": value for name, value in backbone.module.state_dict().items()}
        tensors |= {"coef": torch.from_numpy(self.coef_), "intercept": torch.from_numpy(self.intercept_)}
        settings = {name: value for name, value in self.get_params().items() if name not in ("run", "device")}
        words = {
            "schema_version": SCHEMA_VERSION,
            "backbone": to_dict(card),
            "weights": weights_digest(backbone.module),
            "settings": settings,
            "classes": self.classes_.tolist(),
            "l2": self.l2_,
        }
        with writing(path) as temporary:
            contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            temporary.write_bytes(save(contiguous, {WORDS: json.dumps(words, default=_plain)}))
        return path

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> "PretrainedClassifier":
        """Read what ``save`` has written; the run folder is not needed.

        Raises:
            DataError: there is no such file, or it holds no classifier, or is damaged.
        """
        saved = _Saved(os.path.expanduser(path))
        with saved.errors():
            found = cls(saved.path, **saved.words["settings"], device=device)
            found.classes_, found.l2_ = np.array(saved.words["classes"]), float(saved.words["l2"])
            found.coef_, found.intercept_ = saved.tensors["coef"].numpy(), saved.tensors["intercept"].numpy()
            found._opened, found._weights = saved.backbone(device), saved.words["weights"]
            width = found._opened[0].width(found._choice())
            if found.coef_.shape != (len(found.classes_), width) or found.intercept_.shape != found.classes_.shape:
                raise ValueError(f"its probe is of shape {found.coef_.shape}")
        return found


class _Saved:
    """A file that ``PretrainedClassifier.save`` wrote.

    Raises:
        DataError: there is no such file, it holds no classifier, or is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        with self.errors(), safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if WORDS not in metadata:
                raise ValueError("it holds no classifier")
            self.words: dict[str, Any] = json.loads(metadata[WORDS])
            if self.words["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema {self.words['schema_version']}, this version knows {SCHEMA_VERSION}")
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
            self.card = from_dict(BackboneCard, self.words["backbone"])

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what may be wrong inside such a file into one line."""
        try:
            yield
        except DataError:
            raise
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError, ConfigError) as error:
            why = f"it lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
            raise DataError(
                f"cannot read {self.path} ({why}); give a run folder, or a file that PretrainedClassifier.save wrote"
            ) from error

    def backbone(self, device: str) -> tuple[FrozenBackbone, BackboneCard]:
        """Rebuild the backbone on a device, and return it with its card."""
        made, prefix, placed = self.card.preprocessing, "backbone.", pick_device(device, World())
        weights = {name: value for name, value in self.tensors.items() if name.startswith(prefix)}
        with self.errors():
            module, _, _ = initial_backbone(self.card.backbone, made.image_size, self.card.seed, made.channels)
            module.load_state_dict({name.removeprefix(prefix): value for name, value in weights.items()})
            if weights_digest(module) != self.words["weights"]:
                raise ValueError("its weights are damaged")
        return FrozenBackbone(module, self.card, placed), self.card


def as_pictures(X: Pictures) -> list[Picture]:
    """Return pictures one by one, as ``FrozenBackbone.embed`` takes them.

    Raises:
        InputError: X is one path, or holds what are neither pictures nor paths.
    """
    if isinstance(X, str | Path):
        raise InputError(f"give a list of pictures: ['{X}']")
    if isinstance(X, Image.Image):
        raise InputError("give a list of pictures, not a single one: [picture]")
    if isinstance(X, np.ndarray) and X.ndim not in (1, 4):
        raise InputError(f"give pictures as an array (N, H, W, C), or (N,) of paths, not {X.dtype} {X.shape}")
    pictures = [str(one) if isinstance(one, np.str_) else one for one in X]
    for place, one in enumerate(pictures):
        if not isinstance(one, str | Path | Image.Image | np.ndarray):
            raise InputError(
                f"pictures are paths, Pillow pictures or arrays (H, W, C), and number {place} is a {type(one).__name__}"
            )
    return pictures


def as_labels(y: ArrayLike) -> NDArray[Any]:
    """Return labels ``(N,)`` as texts, whole numbers or truth values.

    Raises:
        InputError: they are numbers with a fraction, several for each picture, or of mixed types.
    """
    try:
        labels = np.asarray(y)
    except ValueError as error:  # lists of different lengths
        raise InputError("fit() takes one label for each picture, and got several for some") from error
    if labels.dtype == object and all(isinstance(one, str) for one in labels.ravel()):
        labels = labels.astype(str)
    if isinstance(y, list | tuple) and labels.dtype.kind in "iubU" and len({_kind(one) for one in y}) > 1:
        raise InputError("fit() takes labels all texts, all whole numbers or all truth values, and got some of each")
    if labels.dtype.kind == "f" and np.equal(np.mod(labels, 1), 0).all() and labels.size:
        labels = labels.astype(np.int64)  # whole numbers that a table keeps as floats
    if labels.ndim != 1 or labels.dtype.kind not in "iubU":
        raise InputError(
            f"fit() takes one label for each picture, all texts or all whole numbers, not {labels.dtype} {labels.shape}"
        )
    return labels


def _kind(label: object) -> str:
    """Of a label in a list: NumPy would make texts of all where one is a text, and numbers of truth values."""
    return "text" if isinstance(label, str) else "truth" if isinstance(label, bool | np.bool_) else "number"


def _plain(value: Any) -> Any:
    """Return a setting as JSON takes it: NumPy's numbers, which a search may have set, as Python's."""
    return value.item() if isinstance(value, np.generic) else str(value)
