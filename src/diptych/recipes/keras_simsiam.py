"""The Keras code example "Self-supervised contrastive learning with SimSiam" (Sayak Paul, 2021), to the letter."""

from diptych.methods import SimSiamConfig
from diptych.optim.config import OptimConfig
from diptych.training.config import RunConfig, TrainConfig
from diptych.views.pipeline import ViewsConfig


def keras_simsiam(data: str) -> RunConfig:
    """The Keras example to the letter, defects included: a reference to compare with, not one to use.

    Command: ``diptych pretrain cifar10.zip --recipe keras-simsiam --limit 10000 --out RUN``, then ``diptych evaluate
    RUN cifar10.zip --limit 10000``, and again with ``--protocol keras``.
    Hardware and time: 2 CPU cores, 7 to 9 minutes.
    Measured: 10,000 CIFAR-10 pictures × 5 epochs, seed 0, all 10,000 test pictures: linear probe 40.8 % (untrained
    44.8 %, raw pixels 39.1 %), kNN 33.0 % (untrained 33.2 %, raw pixels 32.4 %), the example's own probe 37.0 %
    (untrained 32.9 %); intervals ± 1.0.

    Its defects, and what they cost as far as it was measured (docs/results.md, sections 2 to 4):

    - its probe stops long before it is trained: 3.8 points, and it tells that pretraining helped where it hurt;
    - its crop of 32 px out of 32 px does nothing; its weight decay is computed and never added to the loss; its
      learning rate and momentum hardly move the weights in 5 epochs; its predictor puts ReLU before batch norm, its
      projector ends in a scale and a shift, its backbone lacks the last batch norm and ReLU: with all of them mended
      at once (the default recipe), 8.2 points more by kNN and 8.8 by the linear probe, nearly all of it by the higher
      learning rate (with the others mended alone: 0.4 and -0.2);
    - its early stopping waits 5 epochs of 5: nothing, it never acts.

    What differs from the example: batch norm trains (called as it is written there, under Keras 3, the encoder may
    run it in inference mode) with PyTorch's momentum and epsilon; first weights are PyTorch's; convolutions have no
    bias; contrast and saturation follow torchvision (see ``views/pipeline.py``); the batch left over at the end of an
    epoch is left out.
    """
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
