import json
import subprocess
import sys

import pytest
import torch
from tiny import FLAGS, flat, lines, tree

from diptych.data.loader import Loader
from diptych.data.stores.memory import MemoryStore
from diptych.distributed import World, agreed, barrier, joined, mean_over_ranks, pick_device, wrapped
from diptych.errors import ConfigError, RunFolderError
from diptych.training.run import resume

CPU = torch.device("cpu")


def start(*words, processes=2):
    """Run a program under torchrun, on a free port of this machine."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.run([*torchrun, *map(str, words)], capture_output=True, text=True, timeout=600)


# Alone


def test_alone_every_function_does_nothing():
    with joined() as world:
        assert world == World(rank=0, size=1, local_rank=0) and world.is_main
        assert not torch.distributed.is_initialized()
        assert agreed(2, CPU, world) == 2
        value = torch.tensor(3.0)
        assert mean_over_ranks(value, world) is value
        barrier(world)
        module = torch.nn.Linear(2, 2)
        assert wrapped(module, world) is module


def test_only_the_first_process_is_the_main_one():
    assert [World(rank=rank, size=3).is_main for rank in range(3)] == [True, False, False]


@pytest.mark.parametrize("name", ["tpu", "cuda:99", "nonsense"])
def test_a_device_that_is_not_here_is_refused(name):
    with pytest.raises(ConfigError, match=f"--device {name} cannot be used here; type --device auto or --device cpu"):
        pick_device(name, World())


# Together

TOGETHER = """
import json, sys
import torch
from torch import nn
from diptych.data.loader import Loader
from diptych.data.stores.memory import MemoryStore
from diptych.distributed import agreed, barrier, from_main, greatest, joined, mean_over_ranks, wrapped

def act(world):
    cpu = torch.device("cpu")
    store = MemoryStore(images=torch.zeros(14, 3, 2, 2, dtype=torch.uint8), source_indices=torch.arange(14))
    loader = Loader(store, 4, seed=7, rank=world.rank, world=world.size)
    torch.manual_seed(world.rank)  # weights that differ, until they are wrapped
    model = wrapped(nn.Linear(1, 1, bias=False), world)
    first = model.module.weight.item()
    model(torch.full((1, 1), float(1 + world.rank))).sum().backward()
    barrier(world)
    found = {
        "world": [world.rank, world.size, world.local_rank, world.is_main],
        "batches": [[batch.indices.tolist() for batch in loader.epoch(epoch)] for epoch in range(2)],
        "main": from_main([5.0 + world.rank, 0.1], world),
        "greatest": greatest(-3 - world.rank, world),
        "agreed": [agreed(value, cpu, world) for value in (0, 2, world.rank, 2 - 2 * world.rank)],
        "mean": mean_over_ranks(torch.tensor(10.0 + world.rank), world).item(),
        "nan": mean_over_ranks(torch.tensor(float("nan") if world.rank else 1.0), world).isnan().item(),
        "weight": first,
        "gradient": model.module.weight.grad.item(),
    }
    with open(f"{sys.argv[1]}/{world.rank}.json", "w") as file:
        json.dump(found, file)

with joined() as world:
    act(world)
assert not torch.distributed.is_initialized()
"""


def test_two_processes_act_as_one(tmp_path):
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    done = start(script, tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert (first["world"], second["world"]) == ([0, 2, 0, True], [1, 2, 1, False])
    # each batch of both is the batch that one process would have had
    store = MemoryStore(images=torch.zeros(14, 3, 2, 2, dtype=torch.uint8), source_indices=torch.arange(14))
    alone = Loader(store, 4, seed=7)
    for epoch in range(2):
        pairs = zip(first["batches"][epoch], second["batches"][epoch], strict=True)
        assert [a + b for a, b in pairs] == [batch.indices.tolist() for batch in alone.epoch(epoch)]
    # what one of them knows both know
    assert first["agreed"] == second["agreed"] == [0, 2, 1, 2]
    assert first["mean"] == second["mean"] == 10.5
    assert first["main"] == second["main"] == [5.0, 0.1]
    assert first["greatest"] == second["greatest"] == -3
    assert first["nan"] is second["nan"] is True
    # both hold the same weights and follow the mean of their gradients, 1 and 2
    assert first["weight"] == second["weight"]
    assert first["gradient"] == second["gradient"] == 1.5


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two processes: its folder, and what they said."""
    folder = tmp_path_factory.mktemp("distributed")
    data, out = flat(folder / "pictures", 14), folder / "runs" / "two"
    # one epoch with patience: the first best checkpoint is the last thing that the first process writes
    words = ("pretrain", data, "--out", out, *FLAGS, "--epochs", "1", "--patience", "1", "--device", "cpu", "--json")
    return out, start("-m", "diptych", *words)


def test_two_processes_train_one_run(run):
    out, done = run
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert [path.name for path in out.parent.iterdir()] == ["two"]
    card = json.loads((out / "run.json").read_text())
    assert card["hardware"]["processes"] == 2
    assert (card["result"]["status"], card["result"]["steps"]) == ("finished", 3)
    assert [record["step"] for record in lines(out / "metrics.jsonl")] == [0, 1, 2]
    left = {path.name for path in out.iterdir()}
    assert left == {
        *(".diptych-run", "run.json", "metrics.jsonl", "checkpoints", "backbone.safetensors", "backbone.json"),
        *("views.png", "loss.png", "log.txt", "report.html", "pictures.npy"),
    }


def test_only_one_of_two_processes_speaks(run):
    out, done = run
    assert json.loads(done.stdout)["run"] == str(out)
    for said in ("chose ", "Training simsiam", "Restored the weights"):
        starting = [line for line in done.stderr.splitlines() if line.startswith(said)]
        assert len(starting) == len(set(starting)), said
    assert "in 2 processes" in done.stderr


def test_a_run_of_two_processes_is_not_gone_on_with_alone(run):
    out, _ = run
    before = tree(out)
    with pytest.raises(RunFolderError, match="was begun with 2 processes, .*torchrun --nproc-per-node N"):
        resume(out)
    assert tree(out) == before
