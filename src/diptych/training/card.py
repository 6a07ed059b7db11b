"""``run.json``: all that is needed to repeat a run, and to go on with it."""

import json
import os
import platform
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from diptych.config import from_dict, to_dict
from diptych.distributed import World
from diptych.runs import SCHEMA_VERSION, RunFolder, write_json, write_text
from diptych.training.config import RunConfig
from diptych.training.order import Order
from diptych.training.pictures import Pictures
from diptych.training.recover import with_recovery
from diptych.training.warm import Start


def run_card(
    order: Order, pictures: Pictures, start: Start | None, device: torch.device, world: World
) -> dict[str, Any]:
    """Return the contents of ``run.json``."""
    return {
        "schema_version": SCHEMA_VERSION,
        "diptych": metadata.version("diptych"),
        "recipe": order.recipe,
        "config": to_dict(order.config),
        "choices": [asdict(choice) for choice in order.choices],
        "command": order.command,
        "data": {
            "name": pictures.name,
            "note": pictures.note,
            "pictures": pictures.count,
            "kept": pictures.kept,
            "skipped": len(pictures.quarantine),
            "fingerprint": pictures.fingerprint,
        },
        "initial": start.described() if start else None,
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("torch", "timm", "numpy", "pillow")},
        },
        "git_commit": _git_commit(),
        "hardware": {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "processes": world.size,
            "cpu_cores": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
        },
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "result": None,
    }


def write_result(run: RunFolder, result: dict[str, Any]) -> None:
    """Write into ``run.json`` what a run came to, and how many pictures could not be read by then."""
    card, listed = run.read_card(), run.read_lines(run.quarantine)
    once = {(record["during"], record["name"]): record for record in reversed(listed)}
    if len(once) < len(listed):  # several processes have met the same one
        write_text(run.quarantine, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in once.values()))
    skipped = sum(during == "pretrain" for during, _ in once)
    write_json(run.config, card | {"result": result, "data": card["data"] | {"skipped": skipped}})


def _git_commit() -> str | None:
    """The commit of the checkout that this code runs from, None where it is installed."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def saved_config(run: RunFolder) -> RunConfig:
    """Read the configuration of a run from its ``run.json``, with what recoveries have changed since it was begun."""
    card = run.read_card()
    config = from_dict(RunConfig, card["config"])
    for recovery in card.get("recoveries", []):
        config = with_recovery(config, recovery["settings"])
    return config
