"""How good a representation is, told from its features alone: numbers that read no label.

Each sees whether features spread over many directions, whether views of one picture stay together, or whether pictures
fall into groups; none knows what the features are for. They rank representations of the same pictures; ``METRICS`` says
of each which way is better and where it is known to fail.

- RankMe (arXiv 2210.02885, eq. 1): the exponential of the entropy of the singular values of the features as they are,
  p_k = σ_k / Σσ + ε. The paper takes 25,600 pictures; fewer bound it.
- α-ReQ (Agrawal et al., NeurIPS 2022; Ghosh et al., arXiv 2202.05808): α, where the i-th eigenvalue of the features'
  covariance falls like i^(-α). Fitted as Stringer et al. 2019 do, by least squares between the logarithms with weights
  1 / i. Deviation: the range of i is fixed, ``FIT``, and what has fallen to rounding is left out of it.
- LiDAR (arXiv 2312.04000, eq. 1 and 2): the exponential of the entropy of the eigenvalues of Σ_w^(-1/2) Σ_b Σ_w^(-1/2),
  where each picture is a class and its views are the members. Deviations: δ, which is added to the diagonal of Σ_w, is
  a part of the mean variance of a feature and no absolute number, so that features of another scale get the same value;
  there are fewer than the paper's 50 views, as each of them costs a forward pass.
- Cluster learnability and intrinsic dimension, which CLID joins (arXiv 2206.01251). The first is the accuracy of one
  nearest neighbour on the clusters that k-means finds among the l2-normalised features, √N of them. Deviation: one half
  of the pictures learns and the other is judged, where the paper has a neighbour learn from all pictures before the
  one that it is asked about, and so measures how fast it learns. The second is TwoNN (Facco et al. 2017)
  without the tenth of the largest ratios. The two have no common unit. Here each is standardised over the
  representations that are compared, then they are added: their weights could only be learned from labels. So CLID is a
  rank among these representations and nothing by itself.
- Alignment and uniformity (arXiv 2005.10242): see ``diagnostics``.

Spectra are computed in float64, on the CPU: of many orders of magnitude, float32 keeps half.
"""

import math
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from diptych import diagnostics
from diptych.evaluation.probes.knn import nearest
from diptych.seeding import SPLIT, generator

SHARE_ADDED = 1e-7
"""ε of RankMe and LiDAR, added to each share of the whole before its logarithm is taken."""
FIT = (4, 100)
"""First and last i of the power law: a few large eigenvalues lie off the line, and the end is noise of few pictures."""
FEWEST = 5
"""Eigenvalues that a line is fitted to, at least."""
ROUNDING = 1e-12
"""Eigenvalues below this part of the largest are what rounding makes of zero in float32 features."""
RIDGE = 1e-4
"""δ of LiDAR, as a part of the mean variance of a feature."""
POINT = 1e-5
"""Where features are spread by less than this part of their length, they are one vector up to rounding: a collapse."""
COPY = 1e-6
"""Distance, as a part of the typical length of a centred feature vector, below which two pictures have the same one."""
DISCARDED = 0.1
"""Share of the largest ratios that TwoNN leaves out: they come from sparse regions and spoil the line."""
PAIRED = 2048
"""Pictures of which uniformity compares all pairs."""
AT_ONCE = 1 << 23
"""Numbers of float64 that are worked on at a time: 64 MiB."""

Values = dict[str, float | None]
"""Metric → value; None where it says nothing of these features."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What a number means."""

    title: str
    better: Literal["higher", "lower", "near 1"]
    paper: str
    weakness: str
    """Where it is known to fail, for people."""

    def merit(self, value: float | None) -> float:
        """Return a number that is the higher the better the value is; -∞ where there is none."""
        if value is None:
            return -math.inf
        return {"higher": value, "lower": -value, "near 1": -abs(value - 1)}[self.better]


METRICS = {
    "rankme": Metric(
        title="RankMe",
        better="higher",
        paper="arXiv 2210.02885",
        weakness="noise has a high rank too; values of different methods or feature widths do not compare well",
    ),
    "alpha_req": Metric(
        title="α-ReQ",
        better="near 1",
        paper="Agrawal et al., NeurIPS 2022",
        weakness="a spectrum that is no power law still gets an exponent, and few features give too few eigenvalues",
    ),
    "lidar": Metric(
        title="LiDAR",
        better="higher",
        paper="arXiv 2312.04000",
        weakness="it rewards what survives the views, whether or not a task needs what they remove; bounded by width",
    ),
    "clid": Metric(
        title="CLID",
        better="higher",
        paper="arXiv 2206.01251",
        weakness="a rank among the representations compared: it changes with the company, and one alone has none",
    ),
    "learnability": Metric(
        title="cluster learnability",
        better="higher",
        paper="arXiv 2206.01251",
        weakness="perfect in a collapse: one cluster is easily learned",
    ),
    "dimension": Metric(
        title="intrinsic dimension",
        better="higher",
        paper="arXiv 2206.01251",
        weakness="noise has many dimensions; many dimensions are underestimated from few pictures",
    ),
    "alignment": Metric(
        title="alignment",
        better="lower",
        paper="arXiv 2005.10242",
        weakness="perfect in a collapse: views of one picture agree where all pictures do",
    ),
    "uniformity": Metric(
        title="uniformity",
        better="lower",
        paper="arXiv 2005.10242",
        weakness="random directions are the most uniform ones; it does not see what pictures show",
    ),
}


def measure(features: Tensor, views: Tensor, seed: int) -> Values:
    """Return every metric of one representation, save CLID, which needs several.

    Of a collapse, what learnability and alignment would praise is None: a constant is easily learned, and agrees.

    Args:
        features: ``(N, D)`` float32, of N ≥ 8 pictures as they are.
        views: ``(n, q, D)`` float32, of q ≥ 2 views of each of n ≥ 2 pictures.
        seed: of the clusters, and of the halves that learn them and are judged.
    """
    collapsed = _is_point(features)
    return {
        "rankme": rankme(features),
        "alpha_req": alpha_req(features),
        "lidar": lidar(views),
        "learnability": None if collapsed else cluster_learnability(features, seed),
        "dimension": intrinsic_dimension(features),
        "alignment": None if collapsed else float(diagnostics.alignment(views[:, 0], views[:, 1])),
        "uniformity": float(diagnostics.uniformity(features[:PAIRED])),
    }


def rankme(features: Tensor) -> float:
    """Effective rank of the features ``(N, D)``, neither centred nor normalised.

    Returns:
        1..min(N, D), a number of directions: higher is better. About 1 is a collapse, 0 features that are all zero.
    """
    return _effective_rank(_spectrum(features.double()).sqrt())


def alpha_req(features: Tensor) -> float | None:
    """Exponent α of the power law i^(-α) that the eigenvalues of the covariance of ``(N, D)`` follow.

    Returns:
        0 and above; near 1 is good. Far below 1 every direction counts alike, as in noise; far above it a few are all
        there is. None where there are too few eigenvalues to fit a line to.
    """
    if _is_point(features):
        return None
    values = _spectrum(_centred(features))
    first, last = FIT
    fitted = values[values > ROUNDING * values[0]][first - 1 : last]
    if len(fitted) < FEWEST:
        return None
    ranks = torch.arange(first, first + len(fitted), dtype=torch.float64)
    weights = 1 / ranks / (1 / ranks).sum()
    x, y = ranks.log(), fitted.log()
    x, y = x - (weights * x).sum(), y - (weights * y).sum()
    return -float((weights * x * y).sum() / (weights * x.square()).sum())


def lidar(views: Tensor) -> float:
    """Effective rank of the linear discriminant analysis that tells n pictures apart by q views of each.

    Args:
        views: ``(n, q, D)``, neither centred nor normalised.

    Returns:
        1..min(n - 1, D), a number of directions in which pictures differ more than their views: higher is better. 0 is
        a collapse.
    """
    pictures, count, width = views.shape
    if _is_point(views.flatten(0, 1)):
        return 0.0
    means = views.double().mean(dim=1)
    apart = (means - means.mean(dim=0)) / math.sqrt(pictures)
    within = torch.zeros(width, width, dtype=torch.float64)
    rows = max(1, AT_ONCE // (count * width))
    for part, mean in zip(torch.split(views, rows), torch.split(means, rows), strict=True):
        differences = (part.double() - mean[:, None]).flatten(0, 1)
        within.addmm_(differences.T, differences)
    within /= pictures * count
    within.diagonal().add_(RIDGE * (within.trace() + apart.square().sum()) / width)
    # With Σ_w = L Lᵀ, the eigenvalues of L^(-1) Σ_b L^(-T) are those of Σ_w^(-1/2) Σ_b Σ_w^(-1/2).
    factor = torch.linalg.cholesky(within)
    return _effective_rank(_spectrum(torch.linalg.solve_triangular(factor, apart.T, upper=False)))


def cluster_learnability(features: Tensor, seed: int) -> float:
    """Accuracy of one nearest neighbour on clusters of the l2-normalised features ``(N, D)``, N ≥ 8.

    Returns:
        0..1: higher is better, and chance is about 1 / √N; 1 is what a collapse has too.
    """
    unit = F.normalize(features.float())
    chosen = int(generator(seed, SPLIT, 0).initial_seed() % 2**32)
    with warnings.catch_warnings():  # fewer different features than clusters: some clusters stay empty, as is right
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(math.isqrt(len(unit)), n_init=1, random_state=chosen).fit_predict(unit.numpy())
    clusters = torch.from_numpy(found).long()
    learning, judged = torch.randperm(len(unit), generator=generator(seed, SPLIT, 1)).chunk(2)
    neighbours = nearest(unit[learning], unit[judged], 1).indices[:, 0]
    return float((clusters[learning][neighbours] == clusters[judged]).double().mean())


def intrinsic_dimension(features: Tensor) -> float:
    """Dimension of the surface that the features ``(N, D)`` lie on, by the distances to the two nearest neighbours.

    Pictures whose feature vector another one shares tell no dimension and are left out.

    Returns:
        0 and above: higher is better; 0 is a collapse.
    """
    if _is_point(features):
        return 0.0
    centred = _centred(features)
    lengths = centred.square().sum(dim=1)
    pairs = []
    for start in range(0, len(centred), rows := max(1, AT_ONCE // len(centred))):
        part = slice(start, start + rows)
        squared = (lengths[part, None] + lengths - 2 * centred[part] @ centred.T).clamp_min_(0)
        squared[torch.arange(len(squared)), torch.arange(start, start + len(squared))] = math.inf
        pairs.append(squared.topk(2, largest=False).values)
    first, second = torch.cat(pairs).T
    unlike = first > COPY**2 * lengths.mean()
    ratios = (second[unlike] / first[unlike]).sqrt().sort().values
    kept = math.floor((1 - DISCARDED) * len(ratios))
    if kept < 2:
        return 0.0
    x = ratios[:kept].log()
    y = -torch.log1p(-torch.arange(1, kept + 1, dtype=torch.float64) / len(ratios))
    # Where all neighbours are equally far, there are as many dimensions as there can be.
    return float((x * y).sum() / x.square().sum()) if x.any() else float(features.shape[1])


def clid(learnability: Sequence[float | None], dimension: Sequence[float | None]) -> list[float | None]:
    """Add cluster learnability and intrinsic dimension, each standardised over the representations that are compared.

    Returns:
        A value for each: higher is better, 0 is their mean. None where one of the two is, or where there is only one.
    """
    pairs = list(zip(learnability, dimension, strict=True))
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    if len(known) < 2:
        return [None] * len(pairs)
    sums = (a + b for a, b in zip(*map(_standardised, zip(*known, strict=True)), strict=True))
    return [None if None in pair else next(sums) for pair in pairs]


def _standardised(values: Sequence[float]) -> list[float]:
    mean, spread = statistics.fmean(values), statistics.pstdev(values)
    return [(value - mean) / spread if spread else 0.0 for value in values]


def _effective_rank(values: Tensor) -> float:
    """Exponential of the entropy of ``(K,)`` numbers, 0 or more, as shares of their sum; 0 where they are all zero."""
    if not values.any():
        return 0.0
    shares = values / values.sum() + SHARE_ADDED
    return float((-(shares * shares.log()).sum()).exp())


def _spectrum(rows: Tensor) -> Tensor:
    """Squares of the singular values of ``(N, D)`` float64, largest first, by way of the smaller Gram matrix."""
    gram = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
    values: Tensor = torch.linalg.eigvalsh(gram).flip(0).clamp_min(0)
    return values


def _centred(features: Tensor) -> Tensor:
    return features.double() - features.double().mean(dim=0)


def _is_point(features: Tensor) -> bool:
    """Whether the rows are one vector up to rounding, whose noise must not pass for structure."""
    return bool(_centred(features).norm() <= POINT * features.double().norm())
