from diptych.training.advice import WINDOW, collapse_warning
from diptych.training.config import RunConfig

CONFIG = RunConfig(data="x", backbone="resnet20v2")


def records(count=WINDOW, loss=-0.5, std=0.9, rank=40.0):
    return [{"loss": loss, "embedding_std": std, "effective_rank": rank}] * count


def test_a_healthy_run_is_left_alone():
    assert collapse_warning(records(), CONFIG) is None


def test_a_low_loss_of_well_spread_embeddings_is_no_collapse():
    assert collapse_warning(records(loss=-0.99), CONFIG) is None


def test_the_keras_example_is_told_apart_by_its_spread():
    """Loss -0.994, std × √d 0.12, effective rank 10.6: a loss that looks good."""
    warning = collapse_warning(records(loss=-0.994, std=0.12, rank=10.6), CONFIG)
    assert "std × √d 0.12" in warning and "-0.994" in warning
    assert "10.6 dimensions" not in warning


def test_one_dimension_is_a_collapse_too():
    assert "1.3 dimensions" in collapse_warning(records(rank=1.3), CONFIG)


def test_a_few_bad_batches_are_not():
    assert collapse_warning(records(WINDOW - 1, std=0.0), CONFIG) is None
    assert collapse_warning(records(std=0.0) + records(), CONFIG) is None


def test_the_three_areas_of_advice_carry_the_runs_own_values():
    warning = collapse_warning(records(std=0.1), CONFIG)
    for part in (
        "(1)",
        "--crop-scale is 0.2 1",
        "0.4/0.4/0.4/0.1",
        "(2)",
        "peak is 0.05",
        "(3)",
        "resnet20v2",
        "2048 → 2048 → 2048",
    ):
        assert part in warning, part
