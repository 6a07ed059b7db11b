"""What the points of the map can be coloured by: label, split, cluster, outlier score.

Label and split are known at once. Clusters and outlier scores are computed when they are first asked for.
"""

import base64
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning

from diptych.explorer.later import Later
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
    """For the page: ``kind`` is ``categories`` (with names and counts, of which the first ``coloured`` have a colour of
    their own) or ``scale`` (with ``low`` and ``high``)."""
    values: NDArray[np.uint8] | NDArray[np.uint32] | NDArray[np.float32]
    """``(N,)``: places in the categories, or numbers."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values as the page reads them: numbers in base64, of ``type`` u1, u4 or f4, little-endian."""
        values = self.values.astype(self.values.dtype.newbyteorder("<"))
        kind = f"{values.dtype.kind}{values.dtype.itemsize}"
        return {"about": self.about, "type": kind, "values": base64.b64encode(values.tobytes()).decode("ascii")}


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
        self.later = Later(f"the colours by {title}", compute)

    def colouring(self) -> Colouring:
        """Return the values, however long it takes. Raises UserError where these pictures have none."""
        return self.later.value()


def schemes_of(vectors: Vectors, splits: Sequence[str | None] | None) -> list[Scheme]:
    """Return what these pictures can be coloured by, the quick ones first."""
    labels, found = vectors.labels, []
    if labels is not None:
        found.append(Scheme("label", "label", lambda: categories(labels), quick=True))
    if splits is not None and len(set(splits)) > 1:
        found.append(Scheme("split", "split", lambda: categories(splits), quick=True))
    if len(vectors) > 1:
        classes = len({*(labels or [])} - {None})
        number = min(classes if classes > 1 else CLUSTERS, COLOURS)
        found.append(Scheme("cluster", "cluster", lambda: _clusters(vectors.values, number)))
        if len(vectors) <= SCORED:
            found.append(Scheme("outlier", "outlier score", lambda: _scores(vectors)))
    return found


def categories(words: Sequence[str | None]) -> Colouring:
    """Give each picture the place of its word: the most frequent ``COLOURS`` by name, then the rest, then none.

    Args:
        words: of each picture, None where it has none.
    """
    counts = Counter(words)
    without = counts.pop(None, 0)
    frequent = [word for word, _ in counts.most_common() if word is not None]
    kept: list[str | None] = [*sorted(frequent[:COLOURS]), *sorted(frequent[COLOURS:])]
    entries = [{"name": word, "count": counts[word]} for word in kept]
    if without:
        kept.append(None)
        entries.append({"name": None, "count": without})
    places = {word: place for place, word in enumerate(kept)}
    values = np.fromiter((places[word] for word in words), np.uint32, len(words))
    about = {"kind": "categories", "coloured": min(COLOURS, len(frequent)), "categories": entries}
    return Colouring(about=about, values=values.astype(np.uint8) if len(kept) <= 256 else values)


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
    return categories([names[cluster] for block in blocks for cluster in block.tolist()])


def _scores(vectors: Vectors) -> Colouring:
    scores = outliers(vectors, top=1).scores.astype(np.float32)
    low, high = (float(value) for value in np.quantile(scores, (0.01, 0.99)))
    note = (
        "Local outlier factor: 1 is as dense as around its neighbours, 1.5 and above stands out. The colours end where "
        "1 score of 100 lies beyond."
    )
    return Colouring(about={"kind": "scale", "low": low, "high": high, "note": note}, values=scores)
