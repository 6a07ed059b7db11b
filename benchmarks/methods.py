"""Every method at one equal budget, the same pictures, network, batch and steps: table and figure of docs/methods.md.

    python benchmarks/methods.py cifar10.zip runs/methods --seeds 0 1 2
    python benchmarks/methods.py cifar10.zip runs/methods --draw docs/methods.png

Each run is a process of its own, by the command line that a user would type, so that its peak memory is its own. What
is there already is not run again. Nothing here was tuned on the test pictures.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diptych.methods import METHODS

LIMIT, EPOCHS = "10000", "5"
DIPTYCH = [sys.executable, "-m", "diptych"]


def measured(words: Sequence[str]) -> tuple[dict[str, Any], float]:
    """Run a command with ``--json``; returns what it printed, and its peak memory in GiB."""
    with subprocess.Popen([*DIPTYCH, *words, "--json"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with code {process.returncode}")
    return json.loads(said), usage.ru_maxrss / 2**20


def run(data: str, out: Path, method: str, seed: int) -> None:
    """Pretrain and evaluate once, and write down what came of it."""
    folder, note = out / f"{method}-{seed}", out / f"{method}-{seed}.json"
    if note.exists():
        return
    budget = f"--limit {LIMIT} --epochs {EPOCHS} --batch-size 128 --backbone resnet20v2 --image-size 32".split()
    trained, memory = measured(
        ["pretrain", data, "--out", str(folder), "--method", method, *budget, "--seed", str(seed), "--overwrite"]
    )
    proof, _ = measured(["evaluate", str(folder), data, "--limit", LIMIT])
    scores = {
        contender: {probe: [score["top1"], score["ci95"]] for probe, score in probes.items()}
        for contender, probes in proof["contenders"].items()
    }
    found = {
        "method": method,
        "seed": seed,
        "pictures_per_second": trained["images_per_second"],
        "seconds": trained["seconds"],
        "memory_gib": memory,
        "scores": scores,
        "verdict": proof["verdict"]["outcome"],
        "warnings": trained["warnings"],
    }
    note.write_text(json.dumps(found, indent=2))
    print(
        method,
        seed,
        {c: {p: round(100 * s[0], 1) for p, s in probes.items()} for c, probes in scores.items()},
        flush=True,
    )


def results(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Read what was written down, by method."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in METHODS}
    for path in sorted(out.glob("*.json")):
        note = json.loads(path.read_text())
        found[note["method"]].append(note)
    return {name: notes for name, notes in found.items() if notes}


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Write the least and the greatest of some values: ``40.3 to 41.3``."""
    low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Write the results as a table in Markdown: from the least to the greatest seed, an interval where there is one."""
    lines = [
        "| method | kNN % | linear probe % | untrained: kNN, linear | pictures/s | GiB | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, notes in found.items():
        untrained = ", ".join(told(notes, "random", probe) for probe in ("knn", "linear"))
        cells = [f"`{name}`", told(notes, "pretrained", "knn"), told(notes, "pretrained", "linear"), untrained]
        cells.append(spread([note["pictures_per_second"] for note in notes], 0))
        cells.append(f"{max(note['memory_gib'] for note in notes):.1f}")
        cells.append(", ".join(str(note["seed"]) for note in notes))
        lines.append(f"| {' | '.join(cells)} |")
    any_notes = next(iter(found.values()))
    lines.append(f"| raw pixels | {told(any_notes, 'pixels', 'knn')} | {told(any_notes, 'pixels', 'linear')} | | | | |")
    return "\n".join(lines)


def told(notes: list[dict[str, Any]], contender: str, probe: str) -> str:
    """Write a contender's accuracy in percent: ``45.9 (45.0 to 46.9)`` for one seed, ``45.1 to 45.9`` for several."""
    scores = [note["scores"][contender][probe] for note in notes]
    if len(scores) == 1 and contender != "random":
        (accuracy, (low, high)) = scores[0]
        return f"{100 * accuracy:.1f} ({100 * low:.1f} to {100 * high:.1f})"
    return spread([100 * accuracy for accuracy, _ in scores])


def draw(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw both probes of every method beside the untrained network and raw pixels."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 0.42 * len(found) + 1.7), sharey=True, layout="constrained")
    for axis, probe, title in zip(axes, ("linear", "knn"), ("linear probe", "kNN"), strict=True):
        for row, notes in enumerate(found.values()):
            for note in notes:
                score, (low, high) = note["scores"]["pretrained"][probe]
                untrained = note["scores"]["random"][probe][0]
                axis.plot([100 * untrained], [row], "|", color="0.45", markersize=12, markeredgewidth=1.5)
                axis.plot(
                    [100 * low, 100 * high], [row, row], color="C0", alpha=0.35, linewidth=5, solid_capstyle="butt"
                )
                axis.plot([100 * score], [row], "o", color="C0", markersize=5)
        pixels = next(iter(found.values()))[0]["scores"]["pixels"][probe][0]
        axis.axvline(100 * pixels, color="0.6", linestyle=":", linewidth=1.2)
        axis.text(100 * pixels, -0.75, " raw pixels", color="0.4", fontsize=8, va="center")
        axis.set_xlabel(f"{title}, % of all 10,000 test pictures")
        axis.grid(axis="x", alpha=0.25)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
        axis.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(found)), list(found))
    axes[0].set_ylim(len(found) - 0.5, -1.2)
    figure.suptitle(
        "10,000 CIFAR-10 pictures, shown five times to ResNet-20 v2; dots: one seed each with its 95 % interval; "
        "bars: the same network untrained",
        fontsize=9,
    )
    figure.savefig(path, dpi=160)


def main() -> None:
    """Run what is asked for, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[])
    parser.add_argument("--draw", type=Path)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    for seed in asked.seeds:
        for method in asked.methods:
            run(asked.data, asked.out, method, seed)
    found = results(asked.out)
    print(table(found))
    if asked.draw:
        draw(found, asked.draw)


if __name__ == "__main__":
    main()
