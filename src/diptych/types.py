"""The tensors that travel: source → store → loader → views → method → loop.

Shapes are written ``(B, C, H, W)``: B pictures in a batch, C channels, H × W pixels; ``D`` is an embedding's length.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor, nn

Views: TypeAlias = list[Tensor]
"""Augmented versions of one batch, each ``(B, C, h, w)`` float32, normalised; row i of every view is picture i."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Pictures as the loader yields them."""

    images: Tensor
    """``(B, C, H, W)`` uint8, values 0..255."""
    indices: Tensor
    """``(B,)`` int64: each picture's place in the store."""
    names: tuple[str, ...] = ()
    """Of the pictures, where they have no place in a store: those of a stream."""


@dataclass(frozen=True, kw_only=True)
class StepOutput:
    """What a method returns for one batch of views."""

    loss: Tensor
    """Scalar float32, to be minimised."""
    embeddings: Tensor
    """``(B, D)`` float32, detached: what the loss compares (the projector's output), for the diagnosis."""
    positives: Tensor
    """``(B, D)`` float32, detached: the same of another view; row i of both comes from one picture."""
    metrics: Mapping[str, Tensor]
    """Further scalars worth a curve, detached; may be empty."""


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Parameters that are optimised alike."""

    parameters: list[nn.Parameter]
    constant_lr: bool = False
    """Stay at the peak learning rate: neither warm-up nor decay."""
    frozen_until: float = 0.0
    """Part of the run, 0..1, during which these stand still: their gradients are dropped."""
