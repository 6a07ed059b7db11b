import math

import numpy as np
import pytest
import torch
from scipy.stats import zscore
from sklearn.cluster import KMeans
from sklearn.neighbors import KNeighborsClassifier

from diptych.diagnostics import alignment, uniformity
from diptych.evaluation.choosing import unlabelled
from diptych.evaluation.choosing.unlabelled import (
    METRICS,
    alpha_req,
    clid,
    cluster_learnability,
    intrinsic_dimension,
    lidar,
    measure,
    rankme,
)
from diptych.seeding import SPLIT, generator


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_spectrum(variances, pictures=300):
    """Features whose covariance has exactly these eigenvalues, times 1 / pictures, about a mean that is not 0."""
    wide = noise(pictures, len(variances)).double()
    columns, _ = torch.linalg.qr(wide - wide.mean(dim=0))
    turned, _ = torch.linalg.qr(noise(len(variances), len(variances), seed=1).double())
    return (columns * torch.tensor(variances, dtype=torch.float64).sqrt()) @ turned.T + 0.7


def told_apart(directions, width, apart=1.0):
    """Pictures at ± each of some axes, each with views a little aside along every axis, alike."""
    means = torch.cat([torch.eye(width)[:directions], -torch.eye(width)[:directions]]) * apart
    aside = 0.1 * torch.cat([torch.eye(width), -torch.eye(width)])
    return means[:, None] + aside


def entropy_rank(values):
    """The formula as RankMe and LiDAR write it, one term after the other."""
    total = sum(abs(value) for value in values)
    shares = [value / total + 1e-7 for value in values]
    return math.exp(-sum(share * math.log(share) for share in shares))


# RankMe


@pytest.mark.parametrize("shape", [(60, 20), (20, 60)])
def test_rankme_is_the_papers_formula_on_features_as_they_are(shape):
    features = noise(*shape) * torch.linspace(0.01, 3, shape[1]) + 1.5
    expected = entropy_rank(np.linalg.svd(features.double().numpy(), compute_uv=False))
    assert rankme(features) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("directions", [1, 3, 16])
def test_rankme_of_equal_singular_values_is_their_number(directions):
    features = torch.eye(directions).repeat(64 // directions, 1)
    padded = torch.nn.functional.pad(features, (0, 24 - directions))
    assert rankme(padded) == pytest.approx(directions, rel=1e-4)
    assert rankme(1e4 * padded) == pytest.approx(rankme(padded), rel=1e-6)


# α-ReQ


@pytest.mark.parametrize("alpha", [0.4, 1.0, 2.5])
def test_alpha_of_a_power_law_is_its_exponent(alpha):
    assert alpha_req(with_spectrum([i**-alpha for i in range(1, 129)])) == pytest.approx(alpha, abs=1e-6)


def test_alpha_is_fitted_by_weighted_least_squares_from_the_fourth_to_the_hundredth_eigenvalue():
    features = noise(200, 150) @ noise(150, 150, seed=1)
    values = np.linalg.eigvalsh(np.cov(features.double().numpy(), rowvar=False))[::-1]
    places = range(4, 101)
    design = np.array([[math.log(i), 1.0] for i in places])
    weights = np.diag([1 / i for i in places])
    target = np.array([math.log(values[i - 1]) for i in places])
    slope, _ = np.linalg.solve(design.T @ weights @ design, design.T @ weights @ target)
    assert alpha_req(features) == pytest.approx(-slope, rel=1e-6)


def test_alpha_looks_at_no_eigenvalue_that_is_rounding():
    few = [i**-1.5 for i in range(1, 21)]
    assert alpha_req(with_spectrum([*few, *[0.0] * 60])) == pytest.approx(1.5, abs=1e-6)
    assert alpha_req(with_spectrum(few[:8])) == pytest.approx(1.5, abs=1e-6)
    assert alpha_req(with_spectrum(few[:7])) is None


# LiDAR


def test_lidar_is_the_papers_formula():
    n, q, width = 30, 6, 12
    views = (noise(n, 1, width) * torch.linspace(0.1, 2, width) + 0.5 * noise(n, q, width, seed=1)).double()
    mean, means = views.mean(dim=(0, 1)), views.mean(dim=1)
    between, within = torch.zeros(width, width).double(), torch.zeros(width, width).double()
    for i in range(n):
        between += torch.outer(means[i] - mean, means[i] - mean) / n
        for j in range(q):
            within += torch.outer(views[i, j] - means[i], views[i, j] - means[i]) / (n * q)
    within += 1e-4 * (between.trace() + within.trace()) / width * torch.eye(width)
    values, axes = np.linalg.eigh(within.numpy())
    root = axes @ np.diag(values**-0.5) @ axes.T
    expected = entropy_rank(np.linalg.eigvalsh(root @ between.numpy() @ root))
    assert lidar(views.float()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("directions", [1, 4, 10])
def test_lidar_counts_the_directions_that_tell_pictures_apart(directions):
    views = told_apart(directions, width=10)
    assert lidar(views) == pytest.approx(directions, rel=1e-4)
    assert lidar(300 * views - 5) == pytest.approx(directions, rel=1e-4)


def test_lidar_sees_through_noise_that_rankme_takes_for_rank():
    told = torch.zeros(200, 1, 40)
    told[:, 0, :4] = 3 * noise(200, 4)
    views = told + 0.5 * noise(200, 20, 40, seed=1)
    assert lidar(views) < 8 and rankme(views[:, 0]) > 20


def test_lidar_of_views_that_agree_is_the_rank_of_the_pictures(monkeypatch):
    views = torch.eye(6)[:, None].expand(6, 3, 6)
    assert lidar(views) == pytest.approx(5, rel=1e-4)  # six points about their mean
    whole = lidar(told_apart(3, width=10))
    monkeypatch.setattr(unlabelled, "AT_ONCE", 50)  # a picture at a time
    assert lidar(told_apart(3, width=10)) == pytest.approx(whole, rel=1e-9)


# CLID


def test_learnability_is_the_accuracy_of_one_neighbour_on_clusters():
    features, seed = noise(150, 5), 7
    unit = torch.nn.functional.normalize(features).numpy()
    state = generator(seed, SPLIT, 0).initial_seed() % 2**32
    clusters = KMeans(12, n_init=1, random_state=state).fit_predict(unit)
    order = torch.randperm(150, generator=generator(seed, SPLIT, 1)).numpy()
    learning, judged = order[:75], order[75:]
    reference = KNeighborsClassifier(1, metric="cosine").fit(unit[learning], clusters[learning])
    expected = reference.score(unit[judged], clusters[judged])
    assert 0.3 < expected < 0.9
    assert cluster_learnability(features, seed) == pytest.approx(expected)
    assert cluster_learnability(9 * features, seed) == pytest.approx(expected)


def test_clusters_that_stand_apart_are_learned_wholly():
    features = torch.eye(10).repeat(10, 1) + 0.001 * noise(100, 10)
    assert cluster_learnability(features, 0) > 0.95


def test_dimension_is_a_line_through_the_ratios_of_the_two_nearest_distances():
    features = noise(80, 3)
    ratios = []
    for i in range(80):
        distances = sorted(math.dist(features[i].tolist(), features[j].tolist()) for j in range(80) if j != i)
        ratios.append(distances[1] / distances[0])
    x = [math.log(ratio) for ratio in sorted(ratios)][:72]
    y = [-math.log(1 - i / 80) for i in range(1, 73)]
    expected = sum(a * b for a, b in zip(x, y, strict=True)) / sum(a * a for a in x)
    assert intrinsic_dimension(features) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_dimension_of_a_flat_piece_in_a_wide_space_is_its_own(dimension):
    flat = torch.rand(1500, dimension, generator=torch.Generator().manual_seed(0))
    turned, _ = torch.linalg.qr(noise(30, 30))
    assert intrinsic_dimension(flat @ turned[:dimension] + 3) == pytest.approx(dimension, rel=0.12)


def test_dimension_leaves_copies_out_and_is_the_same_in_parts(monkeypatch):
    features = noise(60, 3)
    copies = torch.cat([features, noise(4, 3, seed=1).repeat_interleave(3, 0)])
    assert intrinsic_dimension(copies) == pytest.approx(intrinsic_dimension(features), rel=0.3)
    assert intrinsic_dimension(features[:5].repeat(8, 1)) == 0  # nothing but copies
    assert intrinsic_dimension(torch.eye(12)) == 12  # everything equally far
    whole = intrinsic_dimension(features)
    monkeypatch.setattr(unlabelled, "AT_ONCE", 200)
    assert intrinsic_dimension(features) == pytest.approx(whole, rel=1e-9)


def test_clid_adds_what_is_standardised_over_the_company():
    learnability, dimension = [0.2, 0.5, 0.9], [4.0, 9.0, 2.0]
    assert clid(learnability, dimension) == pytest.approx(zscore(learnability) + zscore(dimension))
    assert clid([0.5, 0.5], [1.0, 3.0]) == pytest.approx([-1, 1])  # what is alike in all says nothing
    assert clid([0.5], [3.0]) == [None]


# All of them


def test_measure_gives_each_metric_once_and_the_same_again():
    features, views = noise(90, 16), noise(40, 3, 16, seed=1)
    found = measure(features, views, 3)
    assert set(found) | {"clid"} == set(METRICS)
    assert found == measure(features, views, 3)
    assert found["alignment"] == pytest.approx(float(alignment(views[:, 0], views[:, 1])))
    assert found["uniformity"] == pytest.approx(float(uniformity(features)))
    assert measure(features, views, 4)["learnability"] != found["learnability"]


@pytest.mark.parametrize("length", [0.0, 1.0, 100.0])
def test_a_collapse_is_told_by_all(length):
    rounding = 1 + 1e-7 * noise(64, 24)
    collapsed = torch.full((64, 24), length) * rounding
    found = measure(collapsed, collapsed[:, None].repeat(1, 2, 1), 0)
    assert found["rankme"] == pytest.approx(1 if length else 0, abs=0.01)
    assert found["alpha_req"] is None and found["lidar"] == 0 and found["dimension"] == 0
    assert found["uniformity"] == pytest.approx(0, abs=1e-5)
    assert found["alignment"] is None and found["learnability"] is None  # which would be perfect
    rest = [measure(noise(64, 24, seed=seed), noise(40, 2, 24, seed=seed), 0) for seed in (1, 2)]
    joined = clid(*([values[name] for values in (found, *rest)] for name in ("learnability", "dimension")))
    for name, values in [*((name, [values[name] for values in (found, *rest)]) for name in found), ("clid", joined)]:
        merits = [METRICS[name].merit(value) for value in values]
        assert merits[0] < min(merits[1:])


def test_merit_is_higher_where_a_value_is_better():
    assert METRICS["rankme"].merit(3) > METRICS["rankme"].merit(2)
    assert METRICS["uniformity"].merit(-3) > METRICS["uniformity"].merit(-2)
    assert METRICS["alpha_req"].merit(1.1) > METRICS["alpha_req"].merit(0.8) > METRICS["alpha_req"].merit(1.3)
    assert METRICS["alpha_req"].merit(None) < METRICS["alpha_req"].merit(99)
