"""A plan as people read it; ``plan.py`` makes it."""

import math
import statistics
from typing import Any

Found = dict[str, Any]


def as_text(found: Found) -> str:
    """Write a plan for people."""
    return "\n".join([*_told_config(found), *_told_network(found), *_told_costs(found)])


def _told_config(found: Found) -> list[str]:
    chosen = [f"  {choice['what']}: {choice['why']}" for choice in found["choices"]]
    settings = _flat(found["config"])
    width = max(map(len, settings))
    return [
        f"Plan of: {found['command']}" if found["command"] else f"Plan by the recipe {found['recipe']}",
        "",
        "Configuration",
        *(f"  {name:<{width}}  {value}" for name, value in settings.items()),
        *(("", "Chosen for you", *chosen) if chosen else ()),
    ]


def _flat(config: Found, where: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{where}{name}.")
        else:
            flat[f"{where}{name}"] = " ".join(f"{v:g}" for v in value) if isinstance(value, list) else str(value)
    return flat


def _told_network(found: Found) -> list[str]:
    pictures, batch, parameters = found["pictures"], found["first_batch"], found["parameters"]
    kept = {
        "memory": "decoded once into memory",
        "disk": "decoded once into a store on disk",
        "none": "decoded anew each epoch",
        "shards": "streamed from shards",
    }[pictures["kept"]]
    bad = f"; {pictures['unreadable']} of those looked at cannot be read" if pictures["unreadable"] else ""
    shape = " × ".join(map(str, batch["shape"]))
    low, high = batch["range"]
    return [
        "",
        f"Pictures     {pictures['count']:,}, {kept}{bad}",
        f"First batch  {shape} {batch['dtype']}, {low:g} to {high:g}, read in {batch['seconds']:.2g} s",
        f"Parameters   {parameters['backbone'] / 1e6:.2f} M in the backbone, {parameters['method'] / 1e6:.2f} M in "
        f"all, {parameters['trained'] / 1e6:.2f} M trained",
        f"Arithmetic   {found['flop_per_picture'] / 1e9:.2f} GFLOP a picture and step, forward and backward, all views"
        if parameters["trained"]
        else f"Arithmetic   {found['flop_per_picture'] / 1e9:.2f} GFLOP a picture, to compute its codes",
    ]


def _told_costs(found: Found) -> list[str]:
    memory, spent, disk, processes = found["memory"], found["time"], found["disk"], found["processes"]
    of_step = ", ".join(f"{name} {_gib(size)}" for name, size in memory["step"].items())
    host = memory["host"]
    lines = [
        f"Memory       {of_step} (for {memory['pictures_at_once']} pictures at once)"
        + (f", in each of {processes} processes" if processes > 1 else ""),
        f"             pictures {_gib(host['pictures'])}, the program itself {_gib(host['program'])}; in all "
        f"{_gib(memory['total'])} GiB",
        f"             {_free(memory)}",
    ]
    if not memory["fits"]:
        size = memory.get("fitting_batch_size")
        advice = f"type --batch-size {size}" if size else "choose a smaller --image-size or another --backbone"
        lines[-1] += f": it does not fit; {advice}"
    if spent is None:
        lines.append("Time         not measured: a step does not fit into memory")
    else:
        step = spent["step_seconds"]
        once = (
            f"; before that, {_hours(spent['reading_seconds'])} to read the pictures"
            if spent["reading_seconds"]
            else ""
        )
        lines += [
            f"Time         {statistics.median(step):.3g} s a step ({min(step):.3g} to {max(step):.3g} in {len(step)}), "
            f"{spent['pictures_per_second']:,.0f} pictures/s, {spent['steps']:,} steps{once}",
            f"             {_hours(spent['seconds'])} in all ({_hours(spent['least_seconds'])} to "
            f"{_hours(spent['most_seconds'])} by the fastest and the slowest of these steps; a shared machine may "
            "take longer)",
        ]
    kept = f"at most {disk['checkpoints']} checkpoints of {_gib(disk['checkpoint'])}, " if disk["checkpoints"] else ""
    lines.append(
        f"Disk         {_gib(disk['run'])} GiB for the run ({kept}metrics {_gib(disk['metrics'])}), of "
        f"{_gib(disk['run_free'])} that are free"
    )
    if disk["store"]:
        lines.append(
            f"             {_gib(disk['store'])} GiB for the store in {disk['store_folder']}, of "
            f"{_gib(disk['store_free'])} that are free"
        )
    return lines


def _free(memory: Found) -> str:
    if memory["free_on_gpu"] is not None:
        return f"{_gib(memory['free_on_gpu'])} GiB are free on the GPU, {_gib(memory['free'] or math.nan)} beside it"
    return "how much is free is not known" if memory["free"] is None else f"{_gib(memory['free'])} GiB are free"


def _gib(size: float) -> str:
    value = size / 2**30
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}" if value >= 0.01 or value == 0 else f"{value:.4f}"


def _hours(seconds: float) -> str:
    return (
        f"{seconds / 3600:.3g} hours"
        if seconds >= 3600
        else f"{seconds / 60:.2g} min"
        if seconds >= 60
        else f"{seconds:.2g} s"
    )
