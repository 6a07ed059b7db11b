"""SimSiam's ImageNet settings: arXiv 2011.10566, section 4 and appendix A."""

from diptych.methods import SimSiamConfig
from diptych.optim.config import OptimConfig
from diptych.training.config import RunConfig, TrainConfig
from diptych.views.pipeline import ViewsConfig


def simsiam_imagenet(data: str) -> RunConfig:
    """The paper's ImageNet settings: ResNet-50 at 224 px, 100 epochs; for large pictures and several GPUs.

    Measured: not yet; no machine with ImageNet was at hand.
    """
    return RunConfig(
        data=data,
        image_size=224,
        backbone="timm:resnet50",
        method=SimSiamConfig(),
        views=ViewsConfig(),
        optim=OptimConfig(lr=0.05, momentum=0.9, weight_decay=1e-4),
        train=TrainConfig(epochs=100, batch_size=512),
    )
