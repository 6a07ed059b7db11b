"""Two processes with half a batch each have the gradient that one process with the whole batch would have had."""

import json
import os
from pathlib import Path

import pytest
from test_distributed import start

NAMES = {
    "simclr": "backward",
    "barlow": "backward",
    "vicreg": "backward",
    "lejepa": "backward",
    "swav": "forward",
}
"""Methods whose loss is of the global batch, and what of ``gather`` their gradient hangs on.

SwAV's assignments are constants: it needs to hear of the others' rows, not to send gradients to them.
"""

SCRIPT = """
import json, sys
import torch
import torch.distributed as dist
from contracts.test_methods import build, views
from torch import nn
from diptych import distributed
from diptych.distributed import World, gather, joined, wrapped

BATCH = 8
names = dict(word.split("=") for word in sys.argv[2:])


def gradients(name, world):
    method = build(name)
    # On CPUs a batch norm sees its own process's half: no gradient could be the same. With running statistics it is one
    # function everywhere, so that what is left to differ is the loss. (On GPUs wrapped() makes them SyncBatchNorm.)
    for module in method.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    half = BATCH // world.size
    mine = [view[world.rank * half :][:half] for view in views(batch=BATCH, small=1)]
    model = wrapped(method, world)  # held until the end: the gradients are averaged while it lives
    model(mine).loss.backward()
    return {key: p.grad for key, p in method.named_parameters() if p.requires_grad}


def gap(found, expected):
    return {key: ((found[key] - g).abs().max() / g.abs().max()).item() for key, g in expected.items()}


def own_gradient_only(ctx, *gradients):
    return gradients[0][dist.get_rank() * ctx.count :][: ctx.count]


def own_rows_only(ctx, rows):
    ctx.count = len(rows)
    return torch.cat([rows] * dist.get_world_size())


WRONG = {"backward": own_gradient_only, "forward": own_rows_only}


def gathering(world):
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]]) + 10 * world.rank
    rows.requires_grad_()
    gathered = gather(rows)
    weights = torch.arange(8.0).reshape(4, 2) * (1 + world.rank)
    (gathered * weights).sum().backward()
    return {"rows": gathered.tolist(), "gradient": rows.grad.tolist()}


def act(world):
    found = {"gather": gathering(world)}
    for name, part in names.items():
        right = getattr(distributed._Gather, part)
        found[name] = gap(gradients(name, world), alone[name])
        setattr(distributed._Gather, part, staticmethod(WRONG[part]))
        found[name + " wrong"] = gap(gradients(name, world), alone[name])
        setattr(distributed._Gather, part, staticmethod(right))
    with open(f"{sys.argv[1]}/{world.rank}.json", "w") as file:
        json.dump(found, file)


alone = {name: gradients(name, World()) for name in names}
with joined() as world:
    act(world)
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What two processes found, one start for all: relative distances from the gradient of one process alone."""
    folder = tmp_path_factory.mktemp("gradients")
    script = folder / "gradients.py"
    script.write_text(SCRIPT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
        done = start(script, folder, *(f"{name}={part}" for name, part in NAMES.items()))
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_gather_is_its_definition(found):
    rows = [[1, 2], [3, 4], [11, 12], [13, 14]]
    # row r of the whole has weight 2r, 2r + 1 on the first process and twice that on the second
    gradients = [[[0, 3], [6, 9]], [[12, 15], [18, 21]]]
    for rank in range(2):
        assert found[rank]["gather"] == {"rows": rows, "gradient": gradients[rank]}


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_have_the_gradient_of_one(found, name):
    for process in found:
        assert len(process[name]) > 4
        assert max(process[name].values()) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_this_would_notice_a_gather_that_is_wrong(found, name):
    for process in found:
        assert max(process[f"{name} wrong"].values()) > 0.01
