"""A collapse on purpose: SimSiam without its stop-gradient, or without its predictor, and what the diagnostics say.

    python benchmarks/collapse.py cifar10.zip runs/collapse --limit 10000

SimSiam's paper (arXiv 2011.10566, sections 4.1 and 4.2) removes each in turn; the product has no flag for it.
"""

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from diptych.api import learning
from diptych.config import to_dict
from diptych.evaluation.run import evaluate
from diptych.methods.base import predictions
from diptych.methods.losses import negative_cosine
from diptych.methods.simsiam import SimSiam, SimSiamConfig
from diptych.progress import Terminal
from diptych.runs import RunFolder
from diptych.types import StepOutput, Views


class WithoutStopGradient(SimSiam):
    """Gradients flow into the targets too."""

    def loss(self, views: Views) -> StepOutput:
        """Return the same loss, with targets that are no constants."""
        z = [self.projector(self.backbone(view)) for view in views]
        p = [self.predictor(projection) for projection in z]
        terms = [negative_cosine(p[i], z[j]) for i, j in predictions(len(views))]
        return StepOutput(loss=torch.stack(terms).mean(), embeddings=z[0].detach(), positives=z[1].detach(), metrics={})


class WithoutPredictor(SimSiam):
    """The predictor is the identity; its weights stay as they are."""

    def loss(self, views: Views) -> StepOutput:
        """Return the loss of one projection against the other."""
        z = [self.projector(self.backbone(view)) for view in views]
        terms = [negative_cosine(z[i], z[j].detach()) for i, j in predictions(len(views))]
        idle = sum(parameter.sum() for parameter in self.predictor.parameters()) * 0
        return StepOutput(
            loss=torch.stack(terms).mean() + idle, embeddings=z[0].detach(), positives=z[1].detach(), metrics={}
        )


class WithoutStopGradientConfig(SimSiamConfig):
    """SimSiam's settings."""

    def build(self, backbone: nn.Module, num_features: int) -> SimSiam:
        """Make the method without its stop-gradient."""
        return WithoutStopGradient(self, backbone, num_features)


class WithoutPredictorConfig(SimSiamConfig):
    """SimSiam's settings."""

    def build(self, backbone: nn.Module, num_features: int) -> SimSiam:
        """Make the method without its predictor."""
        return WithoutPredictor(self, backbone, num_features)


MAIMED = {"stop-gradient": WithoutStopGradientConfig, "predictor": WithoutPredictorConfig}


def main() -> None:
    """Train each, and print what was recorded and said."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--limit", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=2)
    asked = parser.parse_args()
    for without, maimed in MAIMED.items():
        order = learning.order(
            "simsiam", asked.data, asked.out / without, {"limit": asked.limit, "epochs": asked.epochs}
        )
        settings = to_dict(order.config.method)
        order = replace(order, config=replace(order.config, method=maimed(**settings)))
        result = learning.run_order(order, asked.out / without, overwrite=True, device="cpu", terminal=Terminal())
        print(f"\nwithout {without}: {result.warnings}")
        run = RunFolder(asked.out / without)
        for line in told(run.read_lines(run.metrics)):
            print(line)
        proof = evaluate(asked.out / without, asked.data, limit=asked.limit)
        print(proof["verdict"]["sentence"])


def told(records: list[dict[str, float]]) -> Iterable[str]:
    """Tell the first records, then every twentieth, and the last."""
    yield "| step | loss | std × √d | effective rank |\n|---|---|---|---|"
    for record in [*records[:10:2], *records[10::20], records[-1]]:
        std, rank = record["embedding_std"], record["effective_rank"]
        yield f"| {record['step']} | {record['loss']:.3f} | {std:.3f} | {rank:.1f} |"


if __name__ == "__main__":
    main()
