"""The Keras code example "Self-supervised contrastive learning with SimSiam" (Sayak Paul, 2021), to the letter."""

from diptych.methods import SimSiamConfig
from diptych.optim.config import OptimConfig
from diptych.training.config import RunConfig, TrainConfig
from diptych.views.pipeline import ViewsConfig


def keras_simsiam(data: str) -> RunConfig:
    """The Keras example to the letter, defects included: a reference to compare with, not one to use."""
    return RunConfig(
        data=data,
        image_size=32,
        backbone="resnet20v2-nofinal",
        method=SimSiamConfig(
            projector_layers=2,
            projector_last_affine=True,
            predictor_order="relu-norm",
            predictor_constant_lr=False,
        ),
        views=ViewsConfig(
            crop="padded",
            crop_padding=0,
            horizontal_flip=0.5,
            jitter=0.8,
            brightness=0.32,
            contrast=0.32,
            saturation=0.32,
            hue=0.02,
            brightness_mode="add",
            jitter_order="fixed",
            grayscale=0.2,
            blur=0.0,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
        optim=OptimConfig(lr=0.03, lr_scaling=False, momentum=0.6, weight_decay=0.0),
        train=TrainConfig(epochs=5, batch_size=128, patience=5),
    )
