"""Steps whose loss or gradient is not a finite number: of which pictures they were, and what becomes of the run.

``faults.jsonl`` gets a line from each process: ``step``, ``process``, ``loss`` and ``gradient_norm`` (as text where not
finite), ``suspects`` (pictures whose views held values that are not finite), ``pictures`` (all of its batch).
"""

import math
from collections.abc import Callable

from diptych.distributed import World
from diptych.errors import UserError
from diptych.runs import RunFolder
from diptych.training.config import RunConfig
from diptych.training.step import Gradient
from diptych.types import Batch

SHOWN = 3
"""Pictures that a sentence names."""


class Faults:
    """Notes faults, and ends the run where that was asked for.

    Args:
        run: where they are noted.
        config: of the run.
        names: names the pictures of a batch.
        world: this process's place among those of the run.
        say: tells a person of a step that was skipped.
    """

    def __init__(
        self,
        run: RunFolder,
        config: RunConfig,
        names: Callable[[Batch], list[str]],
        world: World,
        say: Callable[[str], None],
    ) -> None:
        self.run, self.config, self.names, self.world, self.say = run, config, names, world, say

    def note(self, step: int, batch: Batch, made: Gradient, norm: float, *, skipped: int) -> None:
        """Note that ``step`` was not taken.

        Args:
            step: its number.
            batch: this process's part.
            made: what came of it.
            norm: length of the gradient.
            skipped: steps left out before this one.

        Raises:
            UserError: the run is to stop at this, or has skipped as many steps as it may.
        """
        care, loss = self.config.care, float(made.output.loss)
        named = self.names(batch)
        suspects = [name for name, finite in zip(named, made.finite, strict=True) if not finite]
        self.run.append(
            self.run.faults,
            {
                "step": step,
                "process": self.world.rank,
                "loss": loss if math.isfinite(loss) else str(loss),
                "gradient_norm": norm if math.isfinite(norm) else str(norm),
                "suspects": suspects,
                "pictures": named,
            },
        )
        what = "loss" if not math.isfinite(loss) or math.isfinite(norm) else "gradient"
        said = f"the {what} is not a finite number at step {step} ({self._blame(suspects, named)})"
        if care.on_nonfinite == "skip" and skipped < care.max_skips:
            self.say(f"Left out: {said}")
            return
        if care.on_nonfinite == "skip":
            said += f", after {skipped} steps were left out, which is --max-skips"
        optim = self.config.optim
        kept = "; the last checkpoint is kept" if (self.run.checkpoints / "last").exists() else ""
        raise UserError(
            f"{said}: try a lower --lr (now {optim.lr}) or a longer --warmup-epochs (now {optim.warmup_epochs:g}) "
            f"with a new --out, or leave such steps out with --on-nonfinite skip{kept}"
        )

    def _blame(self, suspects: list[str], named: list[str]) -> str:
        if not suspects:
            return f"{self.run.faults} names the {len(named)} pictures of the batch"
        listed = ", ".join(suspects[:SHOWN]) + (" and others" if len(suspects) > SHOWN else "")
        return f"views of {listed} hold values that are not finite; see {self.run.faults}"
