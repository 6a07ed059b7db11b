"""MoCo v2: Improved Baselines with Momentum Contrastive Learning, Chen et al. 2020 (arXiv 2003.04297).

The machinery is MoCo's (He et al. 2019, arXiv 1911.05722): the query of one view has to find the key of the other,
which a momentum encoder made, among the keys of earlier batches, which are kept in a queue. So the number of negatives
does not depend on the batch size, and because the key encoder moves slowly, old keys stay comparable with new ones.

Kept from the papers: only one view gives keys and only the others give queries (the loss is not symmetric); the
momentum is constant; the keys of a batch enter the queue after its loss.

Deviations from the papers:

- Rows of the queue that are not filled yet are no negatives; the authors' code begins with random unit vectors, which
  lie nowhere near an embedding. So the first step has nothing to learn from, and the loss rises while the queue fills,
  as ln(1 + filled) does (metric ``queue_filled``): losses of that time do not compare with later ones.
- ``queue_size`` need be no multiple of the batch size; where the batch is the greater, the last keys stay.
- Shuffled batch norm (1911.05722, section 3.3): where a query and its key are normalised with the same other pictures,
  their statistics may give the pair away. Keys are shuffled here only where it changes something: over several
  processes that each normalise their own share (CPUs). On GPUs ``distributed.wrapped`` synchronises the norms instead,
  so that statistics do not tell one share from another. In one process a shuffle does nothing, since all keys of a
  batch are normalised together: the leak is then possible, and shows as a low loss with features that do not improve.
- ``projector_width`` is 2048, which is the paper's (as wide as the features) for ResNet-50 alone.
- More than two views (multi-crop, arXiv 2006.09882): see ``MoCo.loss``.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from tyro.conf import Suppress

from diptych.distributed import first_row, gather
from diptych.errors import check
from diptych.heads import mlp
from diptych.methods.base import About, Method, arrows
from diptych.methods.momentum import MomentumEncoder
from diptych.types import StepOutput, Views


@dataclass(frozen=True, kw_only=True)
class MoCoConfig:
    """Settings of MoCo v2; the defaults are the paper's for ImageNet."""

    about: ClassVar[About] = About(
        idea="A query finds its picture's key among the keys of many earlier batches, kept in a queue.",
        paper="Chen et al. 2020, arXiv 2003.04297",
        needs="two views, memory for a second network, a queue shorter than the set of pictures; batches of any size",
    )
    losses_compare: ClassVar[bool] = False
    """The loss rises while the queue fills."""
    per_picture: ClassVar[bool] = True
    name: Suppress[Literal["moco"]] = "moco"
    temperature: float = 0.2
    """What similarities are divided by; lower looks at the hardest negatives only."""
    ema_momentum: float = 0.999
    """How slowly the key encoder follows, each step: 0 copies, towards 1 stands still."""
    queue_size: int = 65536
    """Keys of earlier batches that serve as negatives; keep it below the number of pictures (4096 on CIFAR)."""
    projector_width: int = 2048
    """Hidden width of the projection head."""
    projector_dim: int = 128
    """Length of the embeddings."""

    def __post_init__(self) -> None:
        check(self, "above 0", lambda value: value > 0, "temperature")
        check(self, "in 0..1, 1 excluded", lambda value: 0 <= value < 1, "ema_momentum")
        check(self, "1 or more", lambda value: value >= 1, "queue_size")
        check(self, "2 or more", lambda value: value >= 2, "projector_width", "projector_dim")

    @property
    def heads(self) -> str:
        """What stands on the backbone, for people."""
        return f"projector {arrows(self.projector_width, self.projector_dim)}, queue of {self.queue_size}"

    def build(self, backbone: nn.Module, num_features: int) -> "MoCo":
        """Make the method around ``backbone``, which yields ``(B, num_features)``."""
        return MoCo(self, backbone, num_features)


def info_nce(queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Contrastive loss (1911.05722, eq. 1), the mean over the batch.

    Args:
        queries: ``(B, D)`` float32 unit vectors.
        keys: ``(B, D)``: row i is the positive of query i.
        negatives: ``(K, D)``, the same for all; K may be 0.
        temperature: what the similarities are divided by.

    Returns:
        A float32 scalar, 0 or more; ln(1 + K) is chance.
    """
    with torch.autocast(queries.device.type, enabled=False):  # which would round the products to bfloat16
        logits = torch.cat([(queries * keys).sum(1, keepdim=True), queries @ negatives.T], dim=1) / temperature
    return functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))


def enqueue(queue: Tensor, keys: Tensor, seen: Tensor) -> None:
    """Write ``keys`` ``(N, D)`` over the oldest rows of ``queue`` ``(K, D)``, in place; ``seen`` came before."""
    rows = seen + torch.arange(len(keys), device=queue.device)
    queue[rows[-len(queue) :] % len(queue)] = keys[-len(queue) :]


class MoCo(Method):
    """Backbone f, projector g, and slow copies of both; the loss is InfoNCE of query g(f(view)) and the copies' key."""

    queue: Tensor
    keys_seen: Tensor

    def __init__(self, config: MoCoConfig, backbone: nn.Module, num_features: int) -> None:
        super().__init__(backbone)
        self.config = config
        self.projector = mlp(num_features, (config.projector_width, config.projector_dim), norm=False)
        self.momentum_encoder = MomentumEncoder(self.backbone, self.projector)
        self.register_buffer("queue", torch.zeros(config.queue_size, config.projector_dim))
        self.register_buffer("keys_seen", torch.tensor(0))

    def loss(self, views: Views) -> StepOutput:
        """InfoNCE, ln(1 + filled rows of the queue) at chance.

        The second view gives the keys, the first the queries, as in the paper. Any further view, full-size or small,
        is one more query against the same keys, and the loss is the mean over queries.
        """
        seen = int(self.keys_seen)
        all_keys = self._encode_keys(views[1], seed=seen)
        self.left.append(all_keys)
        keys = all_keys[first_row(len(views[1])) :][: len(views[1])]
        outputs = [self.projector(self.backbone(view)) for view in (views[0], *views[2:])]
        terms = [
            info_nce(functional.normalize(q.float(), dim=1), keys, self.queue[:seen], self.config.temperature)
            for q in outputs
        ]
        filled = torch.tensor(min(1.0, seen / len(self.queue)))
        return StepOutput(
            loss=torch.stack(terms).mean(),
            embeddings=outputs[0].detach().float(),
            positives=keys,
            metrics={"queue_filled": filled},
        )

    def after_step(self, progress: float) -> None:
        """Let the key encoder follow, and the keys of the last loss push out the oldest of the queue."""
        self.momentum_encoder.follow(self.backbone, self.projector, momentum=self.config.ema_momentum)
        for keys in self.left:
            enqueue(self.queue, keys, self.keys_seen)
            self.keys_seen += len(keys)
        self.left.clear()

    def _encode_keys(self, view: Tensor, seed: int) -> Tensor:
        """Return the keys of all processes' pictures, ``(W·B, D)`` unit vectors in the order of the ranks."""
        parts = self.momentum_encoder.modules()
        # Synchronised norms are neither of these.
        norms = any(isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) for part in parts)
        if not (norms and dist.is_initialized() and dist.get_world_size() > 1):
            return gather(self._key(view))
        pictures = gather(view)
        order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed)).to(view.device)
        share = order.chunk(dist.get_world_size())[dist.get_rank()]
        return gather(self._key(pictures[share]))[order.argsort()]

    def _key(self, view: Tensor) -> Tensor:
        return functional.normalize(self.momentum_encoder(view).float(), dim=1)
