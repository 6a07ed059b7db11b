"""What ``--on-collapse recover`` does: back to the last healthy checkpoint, and on from there with one thing changed.

Each recovery is written into ``run.json`` (``recoveries``) before anything goes on, so that a run which is resumed
after it goes on with the change; the records that the run loses by it are kept in ``recovered.jsonl``.
"""

from dataclasses import dataclass, replace

from diptych import checkpoint
from diptych.checkpoint import Progress
from diptych.config import to_dict, with_settings
from diptych.distributed import World, barrier
from diptych.errors import ConfigError
from diptych.methods import METHODS
from diptych.progress import Terminal
from diptych.runs import RunFolder, write_json
from diptych.training.config import RunConfig
from diptych.training.guard import Remedy, Verdict, remedies
from diptych.training.recorder import Recorder


@dataclass(frozen=True)
class Recovered:
    """How a run goes on."""

    config: RunConfig
    point: checkpoint.Checkpoint


def recover(
    run: RunFolder, config: RunConfig, recorder: Recorder, world: World, terminal: Terminal
) -> Recovered | None:
    """Go back to the last healthy checkpoint, and change what the guard advises next.

    Args:
        run: of the run that has collapsed.
        config: that it had by then.
        recorder: whose verdict ended it.
        world: this process's place among those of the run.
        terminal: where to speak.

    Returns:
        How to go on; None where all has been tried that may be.
    """
    before = len(run.read_card().get("recoveries", []))
    barrier(world)  # every process has counted before one of them adds to it
    if world.is_main and (remedy := _next(run, config, recorder)):
        _go_back(run, recorder.verdict, remedy, terminal)
    barrier(world)
    done = run.read_card().get("recoveries", [])
    if len(done) == before:
        return None
    changed = with_recovery(config, done[-1]["settings"])
    return Recovered(changed, checkpoint.load(run.checkpoints / "last"))


def _next(run: RunFolder, config: RunConfig, recorder: Recorder) -> Remedy | None:
    done = run.read_card().get("recoveries", [])
    if len(done) >= config.care.recoveries or not (run.checkpoints / "healthy").exists():
        return None
    tried = [recovery["change"] for recovery in done]
    left = [remedy for remedy in remedies(recorder.verdict, config) if remedy.change not in tried]
    return next((remedy for remedy in left if _fits(config, remedy)), None)


def _fits(config: RunConfig, remedy: Remedy) -> bool:
    """Whether the rest of the configuration goes with a change: what is written must be readable ever after."""
    try:
        with_recovery(config, dict(remedy.settings))
    except ConfigError:
        return False
    return True


def _go_back(run: RunFolder, verdict: Verdict, remedy: Remedy, terminal: Terminal) -> None:
    back_to = checkpoint.go_back(run.checkpoints, "healthy")
    if "method" in remedy.settings:
        (run.checkpoints / "best").unlink(missing_ok=True)  # another method's
    card = run.read_card()
    done = card.get("recoveries", [])
    lost = [record for record in run.read_lines(run.metrics) if record["step"] >= back_to]
    for record in lost:
        run.append(run.recovered, {"recovery": len(done) + 1, **record})
    run.keep_metrics_before(back_to)
    entry = {
        "at": max((record["step"] for record in lost), default=back_to),
        "back_to": back_to,
        "state": verdict.state,
        "evidence": list(verdict.evidence),
        "change": remedy.change,
        "settings": dict(remedy.settings),
    }
    write_json(run.config, card | {"recoveries": [*done, entry]})
    terminal.say(
        f"Recovery {len(done) + 1}: {verdict.state} at step {entry['at']}; back to step {back_to}, and on "
        f"with {remedy.change}"
    )


def since_recovery(run: RunFolder, progress: Progress) -> tuple[Progress, int]:
    """Take recoveries into account where a run goes on.

    Returns:
        ``progress``, without an epoch to beat where the best one was lost by a recovery; and the step at which the
        run's present method began.
    """
    done = run.read_card().get("recoveries", [])
    if done and done[-1]["back_to"] == progress.step and not (run.checkpoints / "best").exists():
        progress = replace(progress, best=None, epochs_without_gain=0)
    return progress, max((recovery["back_to"] for recovery in done if "method" in recovery["settings"]), default=0)


def with_recovery(config: RunConfig, settings: dict[str, object]) -> RunConfig:
    """Return ``config`` with a recovery's change; another method begins with its own defaults."""
    settings = dict(settings)
    if method := settings.pop("method", None):
        made = METHODS[str(method)]()
        known = to_dict(made)
        own = {name: settings.pop(name) for name in list(settings) if name in known}
        config = replace(config, method=with_settings(made, own))
    return with_settings(config, settings)
