"""The library's main calls, typed: what the command line does, from Python.

>>> import diptych
>>> run = diptych.pretrain("pictures/", "runs/mine", epochs=5)
>>> proof = diptych.evaluate("runs/mine", "labelled/")
>>> proof["verdict"]["sentence"]
>>> backbone = diptych.load("runs/mine")
>>> backbone.embed(["a.jpg", "b.jpg"])  # (2, 256) float32
>>> diptych.embed("runs/mine", "pictures/", "vectors.parquet")
>>> vectors = diptych.read_vectors("vectors.parquet")
>>> diptych.search(vectors, "query.jpg", k=5).hits
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from diptych.auditing.run import audit as _audit
from diptych.config import flatten, to_dict, with_settings
from diptych.distributed import World, is_main
from diptych.errors import ConfigError, DataError, suggest
from diptych.evaluation.choosing.select import Selection
from diptych.evaluation.choosing.select import select as _select
from diptych.evaluation.config import EvaluateConfig
from diptych.evaluation.online import Online, read_probe
from diptych.evaluation.run import default_name
from diptych.evaluation.run import evaluate as _evaluate
from diptych.evaluation.segmentation.config import SegmentationConfig
from diptych.evaluation.segmentation.run import evaluate_segmentation
from diptych.evaluation.segmentation.table import as_text as _segmentation_as_text
from diptych.evaluation.table import as_text as _as_text
from diptych.explorer.explore import SIDE, export_static
from diptych.explorer.explore import explore as _explore
from diptych.explorer.layout import Kind
from diptych.explorer.opening import surroundings
from diptych.explorer.server import PORT, Server
from diptych.figures import is_ours, policy_sheet, view_pairs
from diptych.frozen import FrozenBackbone, load
from diptych.handoff.export import Exported, export
from diptych.handoff.push import Pushed
from diptych.handoff.push import push as _push
from diptych.handoff.weights import read_backbone
from diptych.methods import ALL_METHODS
from diptych.progress import Terminal
from diptych.recipes.book import DEFAULT, recipe, skeleton
from diptych.reports.compare import Comparison, draw
from diptych.reports.compare import compare as _compare
from diptych.reports.compare_page import write_page
from diptych.reports.render import write_report
from diptych.runs import RunFolder
from diptych.trackers.follow import Trackers, refuse_missing
from diptych.training.config import RunConfig
from diptych.training.order import Choice, Order, fitted_to_pixels, flags
from diptych.training.plan import choose_batch_size
from diptych.training.result import RunResult
from diptych.training.run import pretrain as _pretrain
from diptych.training.run import resume as _resume
from diptych.training.run import sample_views
from diptych.training.warm import settings_of
from diptych.vectors.duplicates import Duplicates, duplicates
from diptych.vectors.embed import EmbedConfig, Embedded
from diptych.vectors.embed import embed as _embed
from diptych.vectors.outliers import Outliers, outliers
from diptych.vectors.pictures import is_fresh
from diptych.vectors.search import Found, search
from diptych.vectors.select_labels import Chosen, select_labels
from diptych.vectors.table import Vectors, read_vectors
from diptych.views.config import ViewsConfig
from diptych.views.policies import POLICIES

__all__ = [
    "Chosen",
    "Duplicates",
    "Embedded",
    "Exported",
    "Found",
    "FrozenBackbone",
    "Outliers",
    "Pushed",
    "RunResult",
    "Selection",
    "Vectors",
    "audit",
    "compare",
    "duplicates",
    "embed",
    "evaluate",
    "explore",
    "export",
    "export_map",
    "load",
    "order",
    "outliers",
    "pretrain",
    "preview",
    "push",
    "read_backbone",
    "read_vectors",
    "report",
    "resume",
    "search",
    "segment",
    "select",
    "select_labels",
]

Setting = str | int | float | bool | None | tuple[float, ...]


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


def evaluate(
    run: str | Path, data: str | Path, *, device: str = "auto", terminal: Terminal | None = None, **settings: Setting
) -> dict[str, Any]:
    """Prove whether pretraining helped: the backbone against its own random initialisation and raw pixels.

    A run that began from weights (``init_from``) is compared with these weights as they were; random ones stay beside.

    Args:
        run: a finished run.
        data: labelled pictures: class subfolders, an archive of them, a CSV ``path,label``, ``cifar10`` or ``photos``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        terminal: where to speak; silent if None.
        settings: of ``diptych.evaluation.config.EvaluateConfig``, such as ``labels="1%,10%,100%"``, ``seeds=5``,
            ``against="random,scratch,runs/other"``; the flags of ``diptych evaluate --help``.

    Returns:
        What the JSON file holds: ``contenders``, ``differences``, ``verdict``, the ``curve`` over several budgets of
        labels, and how they came about.

    Raises:
        UserError: with one line that says what to change.
    """
    config = with_settings(EvaluateConfig(), settings)
    result = _evaluate(run, str(data), config, device=device, terminal=terminal or Terminal(quiet=True))
    write_report(run)
    return result


def segment(
    run: str | Path, data: str | Path, *, device: str = "auto", terminal: Terminal | None = None, **settings: Setting
) -> dict[str, Any]:
    """Prove whether pretraining helped to tell what each pixel shows.

    Args:
        run: a finished run.
        data: a folder of ``images/`` and ``masks/``; see docs/dense.md.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        terminal: where to speak; silent if None.
        settings: of ``diptych.evaluation.segmentation.config.SegmentationConfig``, such as ``maps="all"``.

    Returns:
        What the JSON file holds: ``contenders``, ``differences``, ``verdict``, and how they came about.

    Raises:
        UserError: with one line that says what to change.
    """
    config = with_settings(SegmentationConfig(), settings)
    result = evaluate_segmentation(run, str(data), config, device=device, terminal=terminal)
    write_report(run)
    return result


def audit(
    data: str | Path, out: str | Path | None = None, *, data_dir: str | None = None, terminal: Terminal | None = None
) -> dict[str, Any]:
    """Say what a set of pictures holds: counts, formats, broken files, duplicates, classes; before any training.

    Args:
        data: as for ``pretrain``, save tar shards.
        out: the folder for ``audit.html``, ``audit.json`` and the index that makes the next audit quick;
            ``audits/NAME`` if None.
        data_dir: where the archive of a named data set lies.
        terminal: where to speak; silent if None.

    Returns:
        What ``audit.json`` holds.

    Raises:
        UserError: with one line that says what to change.
    """
    place = Path(out) if out else Path("audits") / default_name(str(data), "standard")
    return _audit(str(data), place, data_dir=data_dir, terminal=terminal or Terminal(quiet=True))


def report(run: str | Path) -> Path:
    """Rewrite ``RUN/report.html`` from what lies in the run folder; returns its path."""
    return write_report(run)


def compare(runs: Sequence[str | Path], out: str | Path | None = None) -> dict[str, Any]:
    """Put runs side by side: what they are, in which settings they differ, what came of them.

    Args:
        runs: two run folders or more, at any stage.
        out: a folder for ``compare.png`` and ``compare.html``, which show their curves too; nothing is written if None.

    Returns:
        ``runs``, ``differences`` (setting → its value in each run) and ``evaluations``, in groups of those that may be
        compared.

    Raises:
        UserError: with one line that says what to change.
    """
    return compare_runs(runs, out).to_dict()


def compare_runs(runs: Sequence[str | Path], out: str | Path | None) -> Comparison:
    """Compare runs, and draw them into ``out`` if it is given."""
    comparison = _compare(runs)
    if out is not None:
        draw(comparison, Path(out))
        write_page(comparison, Path(out))
    return comparison


def select(
    runs: str | Path | Sequence[str | Path],
    *,
    metric: str | None = None,
    data: str | Path | None = None,
    data_dir: str | None = None,
    pictures: int = 2000,
    seed: int = 0,
    device: str = "auto",
    terminal: Terminal | None = None,
) -> Selection:
    """Choose a checkpoint of a run, or among several runs, by their features alone: no label is read.

    Args:
        runs: a run folder, or several; what is not over yet offers the checkpoints that it has.
        metric: what ranks them: ``rankme``, ``alpha_req``, ``lidar``, ``clid``, ``learnability``, ``dimension``,
            ``alignment`` or ``uniformity``; ``evaluation.choosing.unlabelled`` says what each is and where it fails.
        data: pictures to choose by, as for ``pretrain``; those that the runs learned from if None.
        data_dir: where the archive of a named data set lies.
        pictures: how many are drawn.
        seed: of the draw, the views and the clusters.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        terminal: where to speak; silent if None.

    Returns:
        The choice, its sentence, and every metric of every checkpoint; ``to_dict()`` has JSON values.

    Raises:
        UserError: with one line that says what to change.
    """
    return _select(
        [runs] if isinstance(runs, str | Path) else runs,
        metric=metric,
        data=None if data is None else str(data),
        data_dir=data_dir,
        pictures=pictures,
        seed=seed,
        device=device,
        terminal=terminal or Terminal(quiet=True),
    )


def embed(
    run: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    device: str = "auto",
    terminal: Terminal | None = None,
    **settings: Setting,
) -> Embedded:
    """Write the vectors of all pictures of ``data`` to ``out``, or go on with it where it was interrupted.

    Args:
        run: a finished run.
        data: as for ``pretrain``, save tar shards.
        out: ``NAME.parquet`` or ``NAME.npy``; ``read_vectors`` reads it.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        terminal: where to speak; silent if None.
        settings: of ``diptych.vectors.embed.EmbedConfig``, such as ``features="grid"``, ``dtype="float16"``.

    Raises:
        UserError: with one line that says what to change.
    """
    return _embed(run, str(data), out, with_settings(EmbedConfig(), settings), device=device, terminal=terminal)


def explore(
    vectors: Vectors,
    *,
    layout: Kind = "pca",
    port: int = PORT,
    open_browser: bool = True,
    device: str = "auto",
    terminal: Terminal | None = None,
) -> Server:
    """Show the map of some pictures in browsers on this machine, until the server is closed.

    Args:
        vectors: of ``read_vectors``; their card says where pictures and network are.
        layout: ``pca`` at once, or ``umap`` (an extra), which takes minutes for 50,000 pictures.
        port: where to listen on 127.0.0.1; the next free one where it is in use, any free one for 0.
        open_browser: open the page, where there is a browser.
        device: for pictures from outside: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        terminal: where to speak; silent if None.

    Returns:
        The server, which listens already: ``address``, ``wait()``, ``close()``.

    Raises:
        UserError: with one line that says what to change.
    """
    terminal = terminal or Terminal(quiet=True)
    beside = surroundings(vectors, device, terminal)
    return _explore(
        vectors,
        beside.pictures,
        layout=layout,
        splits=beside.splits,
        embed=beside.embed,
        port=port,
        open_browser=open_browser,
        terminal=terminal,
    )


def export_map(
    vectors: Vectors,
    out: str | Path,
    *,
    layout: Kind = "pca",
    side: int = SIDE,
    overwrite: bool = False,
    terminal: Terminal | None = None,
) -> Path:
    """Write the map of some pictures as a folder that opens in a browser without a server.

    Args:
        vectors: as for ``explore``, and so ``layout``.
        out: the folder, not there yet or empty. It holds small copies of all pictures, and their names.
        layout: see there.
        side: pixels of the longer side of a picture, at most.
        overwrite: delete an earlier map that lies at ``out``.
        terminal: where to speak; silent if None.

    Returns:
        The path of its ``index.html``.

    Raises:
        UserError: with one line that says what to change.
    """
    terminal = terminal or Terminal(quiet=True)
    beside = surroundings(vectors, "cpu", terminal)
    return export_static(
        vectors,
        beside.pictures,
        out,
        layout=layout,
        splits=beside.splits,
        side=side,
        overwrite=overwrite,
        terminal=terminal,
    )


def vectors_for(
    run_or_vectors: str, data: str | None, device: str = "auto", terminal: Terminal | None = None
) -> Vectors:
    """Read vectors, or embed the pictures of ``data`` by a run, into ``RUN/vectors/``, where they are found again.

    Args:
        run_or_vectors: a run folder, or a file that ``embed`` wrote.
        data: as for ``pretrain``; None for a file of vectors.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        terminal: where to speak; silent if None.

    Raises:
        UserError: with one line that says what to change.
    """
    if data is None:
        return read_vectors(run_or_vectors)
    kept = RunFolder.open(run_or_vectors).path / "vectors" / f"{default_name(data, 'standard')}.npy"
    if kept.exists() and is_fresh(kept, run_or_vectors, data):
        return read_vectors(kept)
    embed(run_or_vectors, data, kept, device=device, terminal=terminal, overwrite=kept.exists())
    return read_vectors(kept)


def push(
    run: str | Path,
    repo: str,
    *,
    dry_run: str | Path | None = None,
    licence: str | None = None,
    public: bool = False,
    data: str | None = None,
    data_dir: str | None = None,
    terminal: Terminal | None = None,
) -> Pushed:
    """Send the backbone of a run to the Hugging Face hub, with a model card that says what was measured.

    Args:
        run: a finished run.
        repo: ``USER/NAME``; one that is not there is made.
        dry_run: a folder to write what would be sent to, and nothing is sent.
        licence: under which others may use the weights.
        public: one that is made can be seen by everybody.
        data: pictures to compare on; the run's own, or else the bundled photographs, if None.
        data_dir: where the archive of a named data set lies.
        terminal: where to speak; silent if None.

    Raises:
        UserError: with one line that says what to change.
    """
    return _push(
        run,
        repo,
        told=lambda result: _segmentation_as_text(result) if result.get("task") == "segmentation" else _as_text(result),
        dry_run=dry_run,
        licence=licence,
        public=public,
        data=data,
        data_dir=data_dir,
        terminal=terminal,
    )


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
