"""What an evaluation asks: one dataclass, validated once."""

import re
import shlex
from dataclasses import dataclass, fields
from typing import Literal, get_args

from diptych.errors import ConfigError, check, suggest
from diptych.evaluation.subsets import ALL, Budget, parse_budgets
from diptych.evaluation.targets import Columns, parse_columns

ProbeName = Literal["knn", "linear", "finetune"]
PROBES: tuple[ProbeName, ...] = get_args(ProbeName)
PROTOCOLS = ("standard", "keras")
SPLITS = ("random", "time")
SCRATCH = "scratch"


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Which labelled pictures, how many of their labels, against whom, and by which probes."""

    data_dir: str | None = None
    """Where the archive of a named data set lies."""
    labels: str = "100%"
    """Budgets of labels, such as 1%,10%,100%, or numbers of pictures; the verdict is the largest one's."""
    seeds: int = 1
    """Draw the labels, and fit every probe, this many times."""
    against: str | None = None
    """Whom to meet: random, pixels, scratch (trained on the labels alone), other runs, NAME:weights.safetensors; random
    and pixels if not given."""
    targets: str | None = None
    """Columns of a CSV or Parquet file with numbers to be told from the pictures, such as age,weight."""
    multilabel: str | None = None
    """The column that holds several labels a picture, such as edema;nodule, or columns of 0 and 1."""
    probes: str = "knn,linear"
    """Of knn, linear and finetune (the whole network is trained on the labels)."""
    finetune_steps: int | None = None
    """Steps of fine-tuning and of training from scratch; chosen by the number of labels if not given."""
    features: str = "pooled"
    """What is taken from a backbone: pooled, multicrop, grid or tokens."""
    layer: str | None = None
    """The layer that features are taken from, a number or a name; the last if not given."""
    protocol: Literal["standard", "keras"] = "standard"
    """kNN and a converged linear probe, or the Keras example's own linear probe."""
    split: Literal["random", "time"] = "random"
    """How pictures without a test part are split: at random, or the newest fifth is tested on (a column `time`)."""
    limit: int | None = None
    """Use this many pictures of each split, drawn by a fixed seed."""
    seed: int = 0
    """Of the split and of the probes; with several seeds, the first."""
    name: str | None = None
    """Of the result, RUN/evaluation/NAME.json."""

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ConfigError(f"unknown protocol '{self.protocol}'{suggest(self.protocol, PROTOCOLS)}")
        if self.split not in SPLITS:
            raise ConfigError(f"unknown --split '{self.split}'{suggest(self.split, SPLITS)}")
        numbers = [name for name in ("limit", "seeds", "finetune_steps") if getattr(self, name) is not None]
        check(self, "at least 1", lambda value: value >= 1, *numbers)
        check(self, "0 or more", lambda value: value >= 0, "seed")
        check_name(self.name)
        asked = (self.budgets, self.seeds, self.asked_probes, self.features, self.layer)
        if self.protocol == "keras" and asked != ((ALL,), 1, ("knn", "linear"), "pooled", None):
            raise ConfigError(
                "--protocol keras has one linear probe, on all labels and the backbone's own features: leave out "
                "--labels, --seeds, --probes, --features, --layer and scratch"
            )
        if self.targets is not None and self.multilabel is not None:
            raise ConfigError("--targets and --multilabel ask two questions: evaluate twice, with one of them each")
        asks_columns = self.columns is not None
        if self.protocol == "keras" and asks_columns:
            raise ConfigError("--protocol keras asks for one class a picture: leave out --targets and --multilabel")
        if self.finetune_steps is not None and "finetune" not in self.asked_probes:
            raise ConfigError("--finetune-steps needs --probes knn,linear,finetune, or --against scratch")

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """Budgets of labels, as they were typed."""
        return parse_budgets(self.labels)

    @property
    def columns(self) -> Columns | None:
        """The columns that hold the answers; None where every picture has one class."""
        if self.targets is not None:
            return parse_columns("regression", self.targets)
        return None if self.multilabel is None else parse_columns("multilabel", self.multilabel)

    @property
    def asked_probes(self) -> tuple[ProbeName, ...]:
        """The probes, in their own order; who is to meet ``scratch`` is fine-tuned.

        Raises:
            ConfigError: there is no such probe, or none.
        """
        words = _split(self.probes)
        for word in words:
            if word not in PROBES:
                raise ConfigError(f"unknown probe '{word}'{suggest(word, PROBES)}")
        asked = {*words, *(["finetune"] if SCRATCH in _split(self.against or "") else [])}
        return tuple(probe for probe in PROBES if probe in asked)

    @property
    def words(self) -> str:
        """Flags that repeat this evaluation."""
        changed = [
            (field.name, value)
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default or field.name == "seed"
        ]
        return shlex.join(word for key, value in changed for word in (f"--{key.replace('_', '-')}", str(value)))


def _split(text: str) -> list[str]:
    return text.replace(" ", "").split(",")


def check_name(name: str | None) -> None:
    """Refuse the name of a result that is no plain name of a file.

    Raises:
        ConfigError: it holds something else than letters, digits, - and _.
    """
    if name is not None and not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ConfigError(f"--name may hold letters, digits, - and _ alone, not '{name}'")
