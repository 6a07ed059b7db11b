"""Run folders as runs leave them, without the training."""

import json


def card(**changes):
    """What ``run.json`` holds of a run that goes on."""
    config = {
        "data": "pictures/",
        "backbone": "resnet20v2",
        "method": {"name": "simsiam"},
        "optim": {"lr": 0.5},
        "train": {"epochs": 10, "seed": 0},
    }
    return {
        "schema_version": 1,
        "diptych": "0.1.0",
        "recipe": "simsiam",
        "config": config,
        "choices": [],
        "command": "diptych pretrain pictures/",
        "data": {"name": "pictures", "note": "", "pictures": 1000, "skipped": 0, "fingerprint": "ab"},
        "versions": {},
        "hardware": {"device": "cpu", "processes": 1},
        "started": "2026-11-24T16:30:17+00:00",
        "result": None,
    } | changes


def result(status="finished", steps=100):
    return {
        "status": status,
        "steps": steps,
        "epochs": steps / 10,
        "loss": -0.5,
        "seconds": 90.0,
        "images_per_second": 700.0,
        "warnings": [],
    }


def record(step, **values):
    """Ten steps an epoch, two seconds a step."""
    return {
        "step": step,
        "epoch": (step + 1) / 10,
        "loss": -step / 100,
        "lr": 0.5,
        "embedding_std": 0.9,
        "effective_rank": 30.0,
        "images_per_second": 812.0,
        "wait_fraction": 0.03,
        "seconds": 2.0 * step,
    } | values


def make_run(path, steps=0, log="", **changes):
    """A run folder with a card and so many records; returns its path."""
    path.mkdir(parents=True)
    (path / ".diptych-run").touch()
    (path / "log.txt").write_text(log)
    (path / "metrics.jsonl").write_text("".join(json.dumps(record(step)) + "\n" for step in range(steps)))
    (path / "run.json").write_text(json.dumps(card(**changes)))
    return path


def add(path, *lines):
    """Append to the records; a string is written as it is."""
    with open(path / "metrics.jsonl", "a") as file:
        file.writelines(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
