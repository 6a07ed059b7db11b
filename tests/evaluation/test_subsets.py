import pytest
import torch

from diptych.errors import ConfigError, DataError
from diptych.evaluation.subsets import ALL, Budget, ordered, parse_budgets, subset

LABELS = torch.tensor([0] * 500 + [1] * 300 + [2] * 40 + [3])


def test_shares_and_numbers_are_read():
    assert parse_budgets("1%, 12.5%,100%") == (
        Budget(told="1%", share=0.01),
        Budget(told="12.5%", share=0.125),
        ALL,
    )
    assert parse_budgets("50") == (Budget(told="50", pictures=50),)
    assert [budget.told for budget in ordered(parse_budgets("50%,100,1%"), 1000)] == ["1%", "100", "50%"]


@pytest.mark.parametrize("text", ["", "0%", "101%", "0", "1.5", "half", "1%,,2%", "-5", "1e3", "5%%"])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(ConfigError, match="--labels cannot be .*1%,10%,100% or 50,500"):
        parse_budgets(text)


def test_a_budget_named_twice_and_one_too_large_are_refused():
    with pytest.raises(ConfigError, match="names 10% twice"):
        parse_budgets("10%,1%,10.0%")
    with pytest.raises(DataError, match="--labels 842: there are 841 pictures to learn from"):
        subset(LABELS, Budget(told="842", pictures=842), 0)


@pytest.mark.parametrize("seed", [0, 7])
def test_subsets_are_stratified_nested_and_the_same_each_time(seed):
    rows = [subset(LABELS, budget, seed) for budget in parse_budgets("1%,10%,421,100%")]
    counts = [torch.bincount(LABELS[found], minlength=4).tolist() for found in rows]
    assert counts == [[5, 3, 2, 1], [50, 30, 4, 1], [250, 150, 20, 1], [500, 300, 40, 1]]
    for small, large in zip(rows, rows[1:], strict=False):
        assert set(small.tolist()) < set(large.tolist())
    assert all((found.diff() > 0).all() for found in rows)
    assert torch.equal(rows[0], subset(LABELS, parse_budgets("1%")[0], seed))


def test_another_seed_takes_others_and_more_of_another_class_changes_nothing():
    budget = parse_budgets("10%")[0]
    first, second = (set(subset(LABELS, budget, seed).tolist()) for seed in (0, 1))
    assert len(first & second) < len(first) / 2
    fewer = subset(LABELS[:800], budget, 0)  # the classes 0 and 1 alone
    assert fewer.tolist() == [row for row in sorted(first) if row < 800]


def test_quantities_are_drawn_at_random_and_nested() -> None:
    truth = torch.arange(60, dtype=torch.float64)[:, None]
    few, more = (subset(truth, budget, 0) for budget in parse_budgets("10,50%"))
    assert (len(few), len(more)) == (10, 30) and set(few.tolist()) < set(more.tolist())
    assert few.tolist() == subset(truth, parse_budgets("10")[0], 0).tolist()
    assert few.tolist() != subset(truth, parse_budgets("10")[0], 1).tolist()


def test_rare_labels_have_their_share() -> None:
    truth = torch.zeros(100, 2, dtype=torch.bool)
    truth[:60, 0], truth[50:60, 1] = True, True
    few, more = (subset(truth, budget, 0) for budget in parse_budgets("10%,50%"))
    assert truth[few].sum(dim=0).tolist() == [7, 2] and truth[more].sum(dim=0).tolist() == [30, 5]  # two at least
    assert set(few.tolist()) < set(more.tolist())
