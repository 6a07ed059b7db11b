"""Every entry of ``METHODS`` in two real processes: what one of them knows, queues and centres included, both know."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from diptych.methods import METHODS

TOGETHER = """
import json, sys
import torch
from test_methods import build, views
from diptych.distributed import joined, wrapped
from diptych.methods import METHODS
from diptych.optim.build import build_optimizer
from diptych.optim.config import OptimConfig

def train(name, world):
    method = build(name)
    model, optimizer = wrapped(method, world), build_optimizer(method.parameter_groups(), OptimConfig())
    for step in range(3):
        loss = model(views(seed=10 * step + world.rank)).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        method.after_step((step + 1) / 3)
    return {key: weighed(value) for key, value in method.state_dict().items()}

def weighed(tensor):
    # The sum of its entries, each times its place: another order has another.
    return (tensor.double().flatten() @ torch.arange(1.0, tensor.numel() + 1, dtype=torch.double)).item()

with joined() as world:
    found = {name: train(name, world) for name in METHODS}
    with open(f"{sys.argv[1]}/{world.rank}.json", "w") as file:
        json.dump(found, file)
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    script = folder / "together.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n{TOGETHER}")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*torchrun, str(script), str(folder)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_hold_the_same_method(name, both):
    first, second = (found[name] for found in both)
    own = [key for key in first if "running_" in key]  # each process's batch norms have seen its own pictures
    assert own and any(first[key] != second[key] for key in own)
    for key in first.keys() - set(own):
        assert first[key] == pytest.approx(second[key], rel=1e-6, abs=1e-6), key
