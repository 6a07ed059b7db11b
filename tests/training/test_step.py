"""One step up to its gradient: portions, arithmetic, clipping, activations computed anew."""

import copy
import math

import pytest
import torch
from tiny import config, picture
from torch import nn

from diptych.backbones.build import build_backbone
from diptych.backbones.checkpointing import checkpoint_activations
from diptych.config import with_settings
from diptych.distributed import World
from diptych.errors import ConfigError
from diptych.methods import METHODS
from diptych.optim.build import build_optimizer
from diptych.training.build import refuse_portions
from diptych.training.recover import with_recovery
from diptych.training.step import Backward, gradient_norm
from diptych.types import Batch
from diptych.views.pipeline import ViewMaker

CPU = torch.device("cpu")


def batch(count=8, spoilt=None):
    images = torch.stack([torch.from_numpy(picture(seed)).permute(2, 0, 1) for seed in range(count)])
    return Batch(images=images, indices=torch.arange(count))


def settings(name, **given):
    return with_recovery(config("x", batch_size=8), {"method": name, **given})


def plain():
    """A network without batch norm."""
    return nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())


def without_norms(module):
    """Turn every batch norm into its scale alone, so that pictures do not see one another."""
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._NormBase):
            setattr(module, name, nn.Identity())
        else:
            without_norms(child)
    return module


ALONE = World()


def backward(asked, method, world=ALONE, make_views=None, scaler=None):
    make_views = make_views or ViewMaker(asked.views, asked.image_size)
    scaler = scaler or torch.amp.GradScaler("cpu", enabled=asked.train.precision == "fp16")
    return Backward(asked.train, make_views, method, method, scaler, CPU, world)


def gradients(asked, backbone, features, data, world=ALONE):
    torch.manual_seed(0)
    method = without_norms(asked.method.build(copy.deepcopy(backbone), features)).train()
    if asked.method.name == "moco":  # whose first step has nothing to learn from
        method.queue.normal_()
        method.keys_seen.fill_(len(method.queue))
    made = backward(asked, method, world)(data, step=3)
    return torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None]), made, method


@pytest.mark.parametrize("name", [name for name, cls in METHODS.items() if cls.per_picture])
def test_portions_of_a_batch_have_the_gradient_of_the_whole(name):
    asked = settings(name)
    backbone = plain()
    whole, made, _ = gradients(asked, backbone, 24, batch())
    portions, in_portions, _ = gradients(with_settings(asked, {"accumulate": 4}), backbone, 24, batch())
    assert torch.allclose(whole, portions, atol=1e-5 * float(whole.abs().max())) and whole.any()
    assert in_portions.output.loss.item() == pytest.approx(made.output.loss.item(), rel=1e-5)


@pytest.mark.parametrize("name", [name for name, cls in METHODS.items() if not cls.per_picture])
def test_portions_are_refused_where_pictures_of_a_batch_are_compared(name):
    with pytest.raises(ConfigError, match=f"--accumulate does not go with {name}, whose loss compares all pictures"):
        with_settings(settings(name), {"accumulate": 2})


def test_portions_that_are_too_small_are_refused():
    with pytest.raises(ConfigError, match="--batch-size 8 cannot be shared out in 3 portions"):
        with_settings(settings("simsiam"), {"accumulate": 3})
    asked = with_settings(settings("simsiam"), {"accumulate": 4})
    refuse_portions(asked, World())
    with pytest.raises(ConfigError, match="each process has 4 pictures of a batch, which cannot be computed in 4"):
        refuse_portions(asked, World(size=2))


def test_the_parts_of_two_processes_have_the_gradient_of_one_on_average():
    """Their pictures get the views that one process would have given them."""
    asked, backbone, data = settings("simsiam"), plain(), batch()
    whole, _, _ = gradients(asked, backbone, 24, data)
    parts = [
        gradients(
            asked, backbone, 24, Batch(images=data.images[rows], indices=data.indices[rows]), World(rank=rank, size=2)
        )[0]
        for rank, rows in enumerate((slice(0, 4), slice(4, 8)))
    ]
    assert torch.allclose(whole, sum(parts) / 2, atol=1e-6 * float(whole.abs().max()))


@pytest.mark.parametrize("most", [None, 0.01, 1e6])
def test_a_gradient_is_measured_and_shortened(most):
    asked = settings("simsiam")
    before, _, method = gradients(asked, plain(), 24, batch())
    optimizer = build_optimizer(method.parameter_groups(), asked.optim)
    norm = gradient_norm(optimizer, torch.amp.GradScaler("cpu", enabled=False), most)
    assert norm.item() == pytest.approx(before.double().norm().item(), rel=1e-4)
    after = torch.cat([p.grad.flatten() for p in method.parameters()]).norm().item()
    assert after == pytest.approx(min(norm.item(), most or math.inf), rel=1e-3)


def test_fp16_has_nearly_the_gradient_of_fp32():
    asked, backbone = settings("simsiam"), plain()
    whole, _, _ = gradients(asked, backbone, 24, batch())
    half, _, _ = gradients(with_settings(asked, {"precision": "fp16"}), backbone, 24, batch())
    scale = torch.amp.GradScaler("cpu").get_scale()
    assert torch.nn.functional.cosine_similarity(whole, half, dim=0) > 0.999
    assert half.norm().item() / scale == pytest.approx(whole.norm().item(), rel=0.02)


def test_pictures_whose_views_are_not_finite_are_told_and_a_step_is_taken_back():
    asked = settings("byol")
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    method = asked.method.build(backbone, 6).train()
    views = ViewMaker(asked.views, asked.image_size)

    def spoil(images, draws, rows):
        made = views(images, draws, rows)
        made[1][5, 0, 3, 3] = math.inf
        return made

    step = backward(asked, method, make_views=spoil)
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    made = step(batch(), step=0)
    assert made.finite == (True,) * 5 + (False,) + (True,) * 2 and not made.output.loss.isfinite()
    assert not method.backbone[1].running_mean.isfinite().all()
    step.take_back()
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.state_dict().items())


# Activations computed anew


@pytest.mark.parametrize("name", ["resnet20v2", "timm:test_resnet.r160_in1k", "timm:test_vit.r160_in1k"])
def test_activations_computed_anew_change_nothing_but_memory(name):
    size = 16 if name == "resnet20v2" else 160
    torch.manual_seed(0)
    plain = build_backbone(name, image_size=size).module.train()
    anew = copy.deepcopy(plain)
    checkpoint_activations(anew)
    assert all(
        torch.equal(one, two) for one, two in zip(plain.state_dict().values(), anew.state_dict().values(), strict=True)
    )
    assert all(parameter.grad is None for parameter in anew.parameters())
    kept = []
    for module in (plain, anew):
        images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(1))
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, saved=saved: saved.append(t.nbytes) or t, lambda t: t):
            loss = module(images).square().sum()
        kept.append(sum(saved))
        loss.backward()
    assert kept[1] < 0.7 * kept[0]
    for (key, one), two in zip(plain.named_parameters(), anew.parameters(), strict=True):
        assert torch.allclose(one.grad, two.grad, rtol=1e-3, atol=1e-5), key
    for key, buffer in plain.named_buffers():
        assert torch.allclose(buffer, anew.get_buffer(key), atol=1e-6), key


def test_a_network_that_cannot_is_refused():
    with pytest.raises(ConfigError, match="leave out --checkpoint-activations, or choose another --backbone"):
        checkpoint_activations(plain())
