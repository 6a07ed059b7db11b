"""Learning: ``pretrain``, ``resume``, ``preview``, and what the command line needs of them."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from diptych.api.settings import Setting
from diptych.config import flatten, to_dict, with_settings
from diptych.distributed import World, is_main
from diptych.errors import ConfigError, DataError, suggest
from diptych.evaluation.online import Online, read_probe
from diptych.figures import is_ours, policy_sheet, view_pairs
from diptych.methods import ALL_METHODS
from diptych.progress import Terminal
from diptych.recipes.book import DEFAULT, recipe, skeleton
from diptych.reports.render import write_report
from diptych.trackers.follow import Trackers, refuse_missing
from diptych.training.config import RunConfig
from diptych.training.order import Choice, Order, fitted_to_pixels, flags
from diptych.training.plan import choose_batch_size
from diptych.training.result import RunResult
from diptych.training.run import pretrain as _pretrain
from diptych.training.run import resume as _resume
from diptych.training.run import sample_views
from diptych.training.warm import settings_of
from diptych.views.config import ViewsConfig
from diptych.views.policies import POLICIES


def recipe_for(method: str | None, recipe_name: str | None) -> str:
    """Return the name of the recipe to use: the one that was named, or the method's own.

    Raises:
        ConfigError: there is no such method, or the recipe is one of another method.
    """
    if method is not None and method not in ALL_METHODS:
        raise ConfigError(f"unknown method '{method}'{suggest(method, ALL_METHODS)}")
    if method and recipe_name and skeleton(recipe_name).method.name != method:
        raise ConfigError(f"--recipe {recipe_name} learns by another method: leave out --method {method}")
    return recipe_name or method or DEFAULT


def order(
    recipe_name: str,
    data: str | Path,
    out: str | Path | None,
    settings: Mapping[str, Any],
    device: str = "auto",
) -> Order:
    """Return a recipe's configuration for ``data`` with some settings changed, and the command that repeats it.

    A ``batch_size`` of ``auto`` becomes the recipe's own, or less where a step on ``device`` would not fit.

    Raises:
        UserError: an unknown recipe or setting, a value out of range, or pictures that cannot be read.
    """
    if settings.get("batch_size") != "auto":
        return _order(recipe_name, data, out, settings)
    typed = {name: value for name, value in settings.items() if name != "batch_size"}
    size, choice = choose_batch_size(_order(recipe_name, data, out, typed).config, device)
    made = _order(recipe_name, data, out, {**typed, "batch_size": size})
    return replace(made, choices=[choice, *made.choices])


def _order(recipe_name: str, data: str | Path, out: str | Path | None, settings: Mapping[str, Any]) -> Order:
    shared = {name: value for name, value in settings_of(settings.get("init_from")).items() if name not in settings}
    taken = [
        Choice(what=shlex.join(flags({name: shared[name]})), why="that of the run in --init-from") for name in shared
    ]
    base = recipe(recipe_name, str(data), {**shared, **settings})
    config, adaptations = fitted_to_pixels(with_settings(base.config, {**shared, **settings}), settings)
    values = {name.rpartition(".")[2]: value for name, value in flatten(to_dict(config)).items()}
    given = flags({name: value for name, value in values.items() if name in settings})
    where = ["--out", str(out)] if out else []
    begin = "--method" if base.recipe in ALL_METHODS else "--recipe"
    command = shlex.join(["diptych", "pretrain", str(data), *where, begin, base.recipe, *given])
    return replace(base, config=config, command=command, choices=[*taken, *base.choices, *adaptations])


def pretrain(
    data: str | Path,
    out: str | Path,
    *,
    method: str | None = None,
    recipe: str | None = None,
    overwrite: bool = False,
    device: str = "auto",
    terminal: Terminal | None = None,
    track: Sequence[str] = (),
    **settings: Setting,
) -> RunResult:
    """Learn a representation from unlabeled pictures into the run folder ``out``.

    Args:
        data: a folder, an archive, a list or manifest, tar shards, ``hub:NAME``, ``cifar10`` or ``photos``; see
            docs/data.md.
        out: the run folder, empty or not there yet.
        method: how to learn, see ``diptych methods``; ``simsiam`` if None.
        recipe: see ``diptych recipes``; the method's own if None.
        overwrite: delete an earlier run that lies at ``out``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        terminal: where to speak; silent if None.
        track: services that get the run's numbers as they come: ``tensorboard``, ``wandb``, ``mlflow``, ``trackio``.
        settings: any setting of the recipe by its name: ``epochs=5``, ``batch_size=64`` (or ``"auto"``), ``seed=1``.

    Raises:
        UserError: with one line that says what to change.
    """
    refuse_missing(track)
    asked = order(recipe_for(method, recipe), data, out, settings, device)
    return run_order(asked, out, overwrite=overwrite, device=device, terminal=terminal, track=track)


def run_order(
    asked: Order, out: str | Path, *, overwrite: bool, device: str, terminal: Terminal | None, track: Sequence[str] = ()
) -> RunResult:
    """Run a complete order and write the run's first report."""
    if track and asked.config.method.name == "patches":
        raise ConfigError("patches records nothing on its way, so there is nothing to track: leave out --track")
    with Trackers(track) as trackers:
        result = _pretrain(
            asked,
            out,
            overwrite=overwrite,
            device=device,
            terminal=terminal,
            evaluator=evaluator_for,
            trackers=trackers,
        )
        trackers.close(result.status)
    if is_main():
        write_report(out)
    return result


def evaluator_for(config: RunConfig, world: World, terminal: Terminal) -> Online:
    """Return what looks at the backbone of a run at the end of its epochs."""
    asked, probe = config.probe, None
    if asked.probe and world.is_main:
        probe = read_probe(
            asked.probe,
            config.data_dir if asked.probe == config.data else None,
            pictures=asked.probe_pictures,
            size=config.image_size,
            pixels=config.pixels,
            tile=config.tile,
            chooses=config.chosen_by_labels,
            terminal=terminal,
        )
    return Online(
        probe=probe,
        probe_every=asked.probe_every if asked.probe else 0,
        epochs=config.train.epochs,
        best_by=config.train.watched,
        seed=config.train.seed,
        world=world,
    )


def resume(
    run: str | Path,
    *,
    config: RunConfig | None = None,
    device: str = "auto",
    terminal: Terminal | None = None,
    track: Sequence[str] = (),
) -> RunResult:
    """Go on with an interrupted run, to the same loss curve as if it had not been interrupted.

    Raises:
        UserError: no such run, other settings than it was begun with, changed pictures, or a damaged checkpoint.
    """
    with Trackers(track) as trackers:
        result = _resume(
            run, config=config, device=device, terminal=terminal, evaluator=evaluator_for, trackers=trackers
        )
        trackers.close(result.status)
    if is_main():
        write_report(run)
    return result


def preview(
    data: str | Path, out: str | Path, *, method: str | None = None, recipe: str | None = None, **settings: Setting
) -> Path:
    """Draw some pictures beside their two views, as a run would make them, into the PNG file ``out``.

    Args:
        data: as for ``pretrain``.
        out: the file to write; an earlier one is replaced if it was drawn here.
        method: as for ``pretrain``.
        recipe: as for ``pretrain``.
        settings: as for ``pretrain``.

    Raises:
        UserError: with one line that says what to change.
    """
    return draw_views(order(recipe_for(method, recipe), data, None, settings), out)


def draw_policies(asked: Order, out: str | Path) -> Path:
    """Draw the views of every policy, on the pictures of an order, into the PNG file ``out``; returns its path."""
    path = _drawable(out)
    rows = []
    for name, config in policy_configs(asked.config).items():
        _, pictures, views = sample_views(config)
        rows.append((name, POLICIES[name].sentence, pictures, views))
    policy_sheet(path, rows)
    return path


def policy_configs(config: RunConfig) -> dict[str, RunConfig]:
    """Return a run's configuration under every policy as it is, whatever was chosen or typed."""
    defaults = to_dict(ViewsConfig())
    plain = {setting: defaults[setting] for policy in POLICIES.values() for setting in policy.values}
    made = {}
    for name, policy in POLICIES.items():
        under = with_settings(config, plain | {"policy": name, **policy.values})
        made[name], _ = fitted_to_pixels(under, {})
    return made


def draw_views(asked: Order, out: str | Path) -> Path:
    """Draw the views of a complete order into the PNG file ``out``; returns its path."""
    if asked.config.method.name == "patches":
        raise ConfigError("patches makes no views, so there is nothing to draw: leave out --method patches")
    path = _drawable(out)
    _, pictures, views = sample_views(asked.config)
    view_pairs(path, pictures, views)
    return path


def _drawable(out: str | Path) -> Path:
    path = Path(out)
    if path.exists() and not is_ours(path):
        raise DataError(f"{path} is there already, and diptych did not draw it: choose another --out")
    return path
