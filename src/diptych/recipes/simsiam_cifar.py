"""SimSiam's CIFAR-10 settings: arXiv 2011.10566, appendix D."""

from diptych.methods import SimSiamConfig
from diptych.optim.config import OptimConfig
from diptych.training.config import RunConfig, TrainConfig
from diptych.views.pipeline import ViewsConfig

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2470, 0.2435, 0.2616)


def simsiam_cifar(data: str) -> RunConfig:
    """The paper's CIFAR-10 settings: ResNet-18 with a small stem, 800 epochs; for 32 px pictures and a GPU.

    Command: ``diptych pretrain cifar10 --recipe simsiam-cifar --out RUN``; the paper reports 91.8 % by a linear probe.
    Hardware and time: none here could run it whole.
    Measured: not as it is. Cut to 10,000 pictures × 5 epochs of ResNet-20 v2 on 2 CPU cores (``--limit 10000
    --backbone resnet20v2 --epochs 5 --precision bf16``, 5 minutes, seed 0), all 10,000 test pictures: kNN 33.3 %
    (untrained 33.4 %, raw pixels 32.4 %), linear probe 40.6 % (untrained 43.7 %, raw pixels 39.1 %); intervals ± 1.0.
    So short a run wants a higher learning rate: use ``simsiam``.
    """
    return RunConfig(
        data=data,
        image_size=32,
        backbone="timm:resnet18",
        method=SimSiamConfig(projector_layers=2, predictor_constant_lr=False),
        views=ViewsConfig(blur=0.0, mean=CIFAR_MEAN, std=CIFAR_STD),
        optim=OptimConfig(lr=0.03, momentum=0.9, weight_decay=5e-4),
        train=TrainConfig(epochs=800, batch_size=512),
    )
