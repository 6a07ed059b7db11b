"""The guard before runs whose state is known: the confusion table, and how far the classes lie from one another.

    python benchmarks/guard.py runs/guard
    python benchmarks/guard.py runs/guard --table      # of what is there already

Real runs of 80 steps on the photographs that ship inside scikit-image and scikit-learn (``photos``), 16 px, resnet11v2,
batches of 64, on a CPU; recipes' own settings otherwise. A run that is there already is not run again.

How a run is made to fail:

- dimensional collapse: SimSiam without its stop-gradient, or without its predictor, at 5 times the recipe's learning
  rate. At the recipe's own rate 100 steps bring them to an effective rank of 6 to 7, where collapse is not yet plain.
  The control is SimSiam as it is, at that same rate.
- complete collapse: VICReg with invariance alone and a linear projector, at 5 times the recipe's rate, for 96 steps.
- diverging: 100 times the recipe's rate. Not learning: a ten thousandth of it. Data-starved: batches of 2.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from collapse import MAIMED  # beside this file

from diptych.api import learning
from diptych.config import to_dict
from diptych.runs import RunFolder
from diptych.training.card import saved_config
from diptych.training.guard import FEW, LOW_RANK, LOW_STD, MOVED, SETTLED, THROWN, WINDOW, Look, State, judge

SETTINGS = {"image_size": 16, "backbone": "resnet11v2", "batch_size": 64, "limit": 1024, "epochs": 5}
SETTINGS |= {"precision": "fp32"}
HEADS: dict[str, dict[str, Any]] = {
    "simsiam": {"projector_width": 512, "predictor_width": 128},
    "fastsiam": {"projector_width": 512, "predictor_width": 128},
    "moco": {"queue_size": 512},
    "swav": {"prototypes": 64},
}
"""Where the recipe's are too large for these pictures."""
FOUR = "simsiam", "vicreg", "simclr", "byol"


@dataclass(frozen=True, kw_only=True)
class Case:
    """Runs of one kind."""

    name: str
    method: str
    state: State
    """What they are."""
    seeds: int = 1
    rate: float = 1.0
    """Times the recipe's learning rate."""
    without: str | None = None
    """What of SimSiam is taken away."""
    settings: Mapping[str, Any] = field(default_factory=dict)


INVARIANCE = {
    "variance_weight": 0.0,
    "covariance_weight": 0.0,
    "projector_layers": 1,
    "projector_dim": 128,
    "epochs": 6,
}
STARVED = {"batch_size": 2, "limit": 160, "epochs": 1}
CASES = [
    Case(name="simsiam", method="simsiam", state="healthy", seeds=10),
    *(Case(name=method, method=method, state="healthy", seeds=2) for method in (*FOUR[1:], "moco", "swav", "dino")),
    *(Case(name=method, method=method, state="healthy") for method in ("barlow", "lejepa", "fastsiam")),
    Case(name="simsiam, 5 × rate", method="simsiam", state="healthy", seeds=2, rate=5),
    *(
        Case(name=f"no {w}, 5 × rate", method="simsiam", state="dimensional collapse", seeds=2, rate=5, without=w)
        for w in MAIMED
    ),
    Case(
        name="invariance alone, 5 × rate",
        method="vicreg",
        state="complete collapse",
        seeds=2,
        rate=5,
        settings=INVARIANCE,
    ),
    *(Case(name=f"{method}, 100 × rate", method=method, state="diverging", rate=100) for method in FOUR),
    *(Case(name=f"{method}, 1e-4 × rate", method=method, state="not learning", rate=1e-4) for method in FOUR),
    *(
        Case(name=f"{method}, 2 a batch", method=method, state="data-starved", seeds=2, settings=STARVED)
        for method in FOUR
    ),
]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the guard said of one run, and the numbers by which it did."""

    case: Case
    said: list[tuple[State, int]]
    """Every state but healthy, and the step at which it was first found."""
    last: State
    numbers: dict[str, float]


def run(case: Case, seed: int, folder: Path) -> None:
    """Train once, unless that was done before."""
    if (folder / "report.html").exists():
        return
    settings = SETTINGS | HEADS.get(case.method, {}) | case.settings | {"seed": seed}
    order = learning.order(case.method, "photos", folder, settings)
    order = learning.order(case.method, "photos", folder, settings | {"lr": order.config.optim.lr * case.rate})
    if case.without:
        maimed = MAIMED[case.without](**to_dict(order.config.method))
        order = replace(order, config=replace(order.config, method=maimed))
    learning.run_order(order, folder, overwrite=True, device="cpu", terminal=None)


def found(case: Case, folder: Path) -> Found:
    """Judge a run, record by record, as was done while it was trained: by today's thresholds."""
    run = RunFolder.open(folder)
    records = run.read_lines(run.metrics)
    config = saved_config(run)
    for end, record in enumerate(records, start=1):
        record["health"] = judge(records[:end], config).state
    looks = [Look(records[:end], config, config.train.batch_size) for end in range(WINDOW, len(records) + 1)]
    said: dict[State, int] = {}
    for record in records:
        said.setdefault(record["health"], record["step"])
    said.pop("healthy", None)
    return Found(
        case=case,
        said=list(said.items()),
        last=records[-1]["health"],
        numbers={
            "change of the weights": max(look.throw for look in looks),
            "std × √d": worst(looks, case, lambda look: look.now("embedding_std")),
            "effective rank": worst(looks, case, lambda look: look.now("effective_rank")),
            "moved": (max if case.state == "not learning" else min)(
                look.moved for look in looks if look.full_rate >= SETTLED
            ),
            "pictures a batch": config.train.batch_size,
        },
    )


def worst(looks: Sequence[Look], case: Case, number: Callable[[Look], float]) -> float:
    """Return the number that is nearest to a false verdict: the least of a sound run, the last of one that fails."""
    return min(map(number, looks)) if case.state == "healthy" else number(looks[-1])


def confusion(runs: Sequence[Found]) -> Iterator[str]:
    """Write what runs are against what the guard said of them, as a table in Markdown."""
    states = list(dict.fromkeys(one.case.state for one in runs))
    yield (
        "| is | " + " | ".join(f"said: {state}" for state in states) + " | another alarm before | first alarm at step |"
    )
    yield "|---" * (len(states) + 3) + "|"
    for state in states:
        ours = [one for one in runs if one.case.state == state]
        counts = [sum(one.last == other for one in ours) for other in states]
        alarms = [step for one in ours for name, step in one.said if name == state]
        wrong = sum(any(name != state for name, _ in one.said) for one in ours)
        at = f"{min(alarms)} to {max(alarms)}" if alarms else ""
        yield f"| **{state}** ({len(ours)} runs) | " + " | ".join(map(str, counts)) + f" | {wrong} | {at} |"


def margins(runs: Sequence[Found]) -> Iterator[str]:
    """Write the numbers that decide, case by case, from the least to the greatest run.

    Of sound runs the value nearest to a threshold at any record, of others what the last record shows; of the change of
    the weights the greatest, of how far embeddings moved the least (the greatest of runs that shall not move).
    """
    names = list(runs[0].numbers)
    limits = dict(zip(names, (f"≥ {THROWN}", f"< {LOW_STD}", f"< {LOW_RANK:g}", f"< {MOVED}", f"< {FEW}"), strict=True))
    yield "| runs | " + " | ".join(f"{name} ({limits[name]})" for name in names) + " |"
    yield "|---" * (len(names) + 1) + "|"
    for case in dict.fromkeys(one.case.name for one in runs):
        ours = [one for one in runs if one.case.name == case]
        cells = []
        for name in names:
            low, high = (limit(one.numbers[name] for one in ours) for limit in (min, max))
            cells.append(f"{low:.2g}" if f"{low:.2g}" == f"{high:.2g}" else f"{low:.2g} to {high:.2g}")
        yield f"| {case} ({ours[0].case.state}, {len(ours)}) | " + " | ".join(cells) + " |"


def main() -> None:
    """Run what is not there yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--table", action="store_true", help="run nothing")
    asked = parser.parse_args()
    runs = []
    for seed in range(max(case.seeds for case in CASES)):
        for case in CASES:
            if seed >= case.seeds:
                continue
            folder = asked.out / f"{case.name}-{seed}"
            if not asked.table:
                run(case, seed, folder)
            if (folder / "report.html").exists():
                runs.append(found(case, folder))
                print(case.name, seed, runs[-1].said, {k: round(v, 3) for k, v in runs[-1].numbers.items()}, flush=True)
    print("\n".join(["", *confusion(runs), "", *margins(runs)]))


if __name__ == "__main__":
    main()
