"""What the points of the map can be coloured by: label, split, cluster, outlier score.

Label and split are known at once. Clusters and outlier scores are computed when they are first asked for.
"""

import base64
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning

from diptych.explorer.layout import BLOCK, FITTED, sample, unit
from diptych.vectors.files import Values
from diptych.vectors.outliers import outliers
from diptych.vectors.table import Vectors

COLOURS = 20
"""Categories with a colour of their own; the rest of them, the rarest, share one."""
CLUSTERS = 10
"""Of pictures without labels; with labels, as many as there are classes."""
SCORED = 100_000
"""Pictures up to which outlier scores are offered: the time for them grows with the square of their number."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Colouring:
    """A value for each picture, and what it means."""

    about: dict[str, Any]
    """For the page: ``kind`` is ``categories`` (with names and counts) or ``scale`` (with ``low`` and ``high``)."""
    values: NDArray[np.uint8] | NDArray[np.float32]
    """``(N,)``: places in the categories, or numbers."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values as the page reads them: numbers in base64, uint8 or float32, little-endian."""
        values = self.values if self.values.dtype == np.uint8 else self.values.astype("<f4")
        return {"about": self.about, "values": base64.b64encode(values.tobytes()).decode("ascii")}


class Scheme:
    """A way to colour the points, computed when it is first asked for and kept.

    Args:
        name: in addresses and in the header of the CSV.
        title: for people.
        quick: whether it takes no time, so that the page may begin with it.
        compute: makes it.
    """

    def __init__(self, name: str, title: str, compute: Callable[[], Colouring], *, quick: bool = False) -> None:
        self.name, self.title, self.quick = name, title, quick
        self._compute, self._lock = compute, threading.Lock()
        self._found: Colouring | None = None

    def colouring(self) -> Colouring:
        """Return the values. Raises UserError where these pictures have none; callers wait for each other."""
        with self._lock:
            if self._found is None:
                self._found = self._compute()
            return self._found


def schemes_of(vectors: Vectors, splits: Sequence[str | None] | None) -> list[Scheme]:
    """Return what these pictures can be coloured by, the quick ones first."""
    labels, found = vectors.labels, []
    if labels is not None:
        found.append(Scheme("label", "label", lambda: categories(labels, "no label"), quick=True))
    if splits is not None and len(set(splits)) > 1:
        found.append(Scheme("split", "split", lambda: categories(splits, "no split"), quick=True))
    if len(vectors) > 1:
        classes = len({*(labels or [])} - {None})
        number = min(classes if classes > 1 else CLUSTERS, COLOURS)
        found.append(Scheme("cluster", "cluster", lambda: _clusters(vectors.values, number)))
        if len(vectors) <= SCORED:
            found.append(Scheme("outlier", "outlier score", lambda: _scores(vectors)))
    return found


def categories(words: Sequence[str | None], missing: str) -> Colouring:
    """Give each picture the place of its word: the most frequent ``COLOURS`` by name, then the rest, then none.

    Args:
        words: of each picture, None where it has none.
        missing: what to call that.
    """
    counts = Counter(words)
    without = counts.pop(None, 0)
    kept = sorted(word for word, _ in counts.most_common(COLOURS) if word is not None)
    entries: list[dict[str, Any]] = [{"name": word, "count": counts[word], "rest": False} for word in kept]
    places: dict[str | None, int] = {word: place for place, word in enumerate(kept)}
    rare = [word for word in counts if word not in places]
    if rare:
        places |= dict.fromkeys(rare, len(entries))
        entries.append({"name": f"{len(rare):,} others", "count": sum(counts[word] for word in rare), "rest": True})
    if without:
        places[None] = len(entries)
        entries.append({"name": missing, "count": without, "rest": True})
    values = np.fromiter((places[word] for word in words), np.uint8, len(words))
    return Colouring(about={"kind": "categories", "categories": entries}, values=values)


def _clusters(values: Values, number: int) -> Colouring:
    """Divide pictures by k-means on vectors of length 1; the largest cluster is the first."""
    fitted = sample(values, FITTED)
    model = MiniBatchKMeans(min(number, len(fitted)), random_state=0, n_init=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct pictures than clusters: some stay empty
        model.fit(fitted)
    blocks = [model.predict(unit(values[start : start + BLOCK])) for start in range(0, len(values), BLOCK)]
    order = [cluster for cluster, _ in Counter(np.concatenate(blocks).tolist()).most_common()]
    names = {cluster: f"cluster {place:02}" for place, cluster in enumerate(order, 1)}
    return categories([names[cluster] for block in blocks for cluster in block.tolist()], "no cluster")


def _scores(vectors: Vectors) -> Colouring:
    scores = outliers(vectors, top=1).scores.astype(np.float32)
    low, high = (float(value) for value in np.quantile(scores, (0.01, 0.99)))
    note = "Local outlier factor: 1 is as dense as around its neighbours, 1.5 and above stands out."
    return Colouring(about={"kind": "scale", "low": low, "high": high, "note": note}, values=scores)
