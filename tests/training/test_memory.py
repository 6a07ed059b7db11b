import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import FLAGS, config, flat, tree
from torch import nn

from diptych.distributed import World
from diptych.errors import UserError
from diptych.methods import METHODS
from diptych.runs import RunFolder, write_json
from diptych.training.config import TrainConfig
from diptych.training.memory import (
    SHARE,
    Trial,
    at_once,
    fitting_batch_size,
    free_on,
    measure_step,
    memory_errors,
    out_of_memory,
)

CPU = torch.device("cpu")


def test_weights_gradients_and_optimizer_are_counted_to_the_byte():
    sgd, adam = (measure_step(config("x", optimizer=name), CPU) for name in ("sgd", "adamw"))
    method = Trial(config("x"), CPU).method
    weights = sum(4 * weight.numel() for weight in method.parameters())
    assert sgd.weights == weights + sum(buffer.nbytes for buffer in method.buffers())
    assert sgd.gradients == sgd.optimizer == weights
    assert adam.optimizer == pytest.approx(2 * weights, rel=0.001)  # and a count of steps for each
    assert sgd.total(10) == sgd.weights + 2 * weights + sgd.fixed + 10 * sgd.each


def test_activations_grow_with_pixels_and_with_views():
    made = measure_step(config("x", backbone="resnet20v2"), CPU)
    larger = measure_step(config("x", backbone="resnet20v2", image_size=32), CPU)
    assert larger.each == pytest.approx(4 * made.each, rel=0.05)  # four times the pixels
    assert made.fixed < 0.1 * made.each
    more_views = measure_step(config("x", global_views=4), CPU)
    assert more_views.each == pytest.approx(2 * made.each, rel=0.05)


def test_activations_that_are_computed_again_are_not_kept():
    settings = {"backbone": "timm:resnet18", "image_size": 32}
    plain, again = (measure_step(config("x", checkpoint_activations=on, **settings), CPU) for on in (False, True))
    assert again.each < 0.7 * plain.each and again.weights == plain.weights


def test_gradients_that_are_exchanged_are_held_twice():
    alone, two = (measure_step(config("x"), CPU, world) for world in (World(), World(size=2, local_size=2)))
    assert two.gradients == 2 * alone.gradients


@pytest.mark.parametrize("name", METHODS)
def test_a_step_of_every_method_is_measured(name):
    small = {"projector_width": 16, "projector_dim": 8, "prototypes": 12, "predictor_width": 8, "queue_size": 8}
    base = replace(config("x"), method=METHODS[name]())
    fields = {field for field in vars(METHODS[name]()) if field in small}
    settings = {field: small[field] for field in fields}
    made = measure_step(replace(base, method=METHODS[name](**settings)), CPU)
    assert made.each > 0 and made.gradients > 0


def test_the_largest_power_of_two_that_fits_is_found():
    needs = measure_step(config("x"), CPU)
    free = int(needs.total(40) / SHARE)
    assert fitting_batch_size(config("x"), 128, CPU, free=free) == 32
    assert fitting_batch_size(config("x"), 24, CPU, free=free) == 16  # the largest that was asked for
    assert fitting_batch_size(config("x"), 128, CPU, free=free, held=25 * needs.each) == 8
    assert fitting_batch_size(config("x"), 128, CPU, free=free, held=free) is None
    assert fitting_batch_size(config("x"), 1, CPU) is None


def test_processes_and_portions_multiply_what_is_computed_at_once():
    # two processes on this machine, two portions: four parts of a power of two each
    two = World(size=2, local_size=2)
    needs = measure_step(config("x"), CPU, two)
    free = int(2 * needs.total(10) / SHARE)
    assert fitting_batch_size(config("x", batch_size=8, accumulate=2), 256, CPU, two, free=free) == 4 * 8
    assert at_once(TrainConfig(batch_size=96, accumulate=3), World(size=4)) == 8


def test_a_trial_leaves_the_random_numbers_of_the_program_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    Trial(config("x"), CPU).step(4)
    assert torch.equal(torch.rand(1), expected)


def test_errors_that_say_there_is_no_memory_are_known():
    try:
        torch.empty(2**60)
        pytest.fail("that much was there")
    except RuntimeError as error:
        assert out_of_memory(error)
    try:
        bytearray(2**62)
        pytest.fail("that much was there")
    except (MemoryError, OverflowError) as error:
        assert out_of_memory(error)
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(RuntimeError) as other:
        nn.Linear(2, 2)(torch.zeros(1, 3))
    assert not out_of_memory(other.value) and not out_of_memory(ValueError("out of memory"))


def test_what_was_there_is_intact_and_the_command_to_type_is_whole(tmp_path):
    run = RunFolder.create(tmp_path / "my run")
    command = "diptych pretrain 'my pictures' --out 'my run' --batch-size 64 --lr 0.1"
    card = dict.fromkeys(
        ("diptych", "recipe", "config", "choices", "data", "versions", "hardware", "started", "result")
    )
    write_json(run.config, {"schema_version": 1, "command": command, **card})
    (run.checkpoints / "step-000003").mkdir(parents=True)
    (run.checkpoints / "last").symlink_to("step-000003")
    before = tree(run.path)
    with pytest.raises(UserError) as caught, memory_errors(run, config("x", batch_size=64), CPU, World()):
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert str(caught.value) == (
        f"out of memory with a batch of 64 pictures; 32 fit: type `diptych pretrain 'my pictures' --lr 0.1 --out "
        f"'{run.path}-32' --batch-size 32`; the last checkpoint is kept"
    )
    assert tree(run.path) == before


def test_other_errors_pass_and_several_processes_try_nothing(tmp_path):
    run = RunFolder(tmp_path / "none")
    with pytest.raises(KeyError), memory_errors(run, config("x"), CPU, World()):
        raise KeyError("x")
    with pytest.raises(UserError, match="process 1 is out of memory with a batch of 4 pictures: choose a smaller"):
        with memory_errors(run, config("x"), CPU, World(rank=1, size=2)):
            raise MemoryError
    with pytest.raises(UserError, match="with a batch of 2 pictures, and no smaller one was found to fit"):
        with memory_errors(run, config("x", batch_size=2), CPU, World()):
            raise MemoryError
    assert free_on(CPU) > 0


LIMITED = """
import resource, sys
from pathlib import Path
from diptych.cli import main
words = sys.argv[1:]
# A first run loads all that is loaded late.
small = {"--out": words[words.index("--out") + 1] + "-first", "--batch-size": "4", "--epochs": "1", "--limit": "8"}
changed = [word for place, word in enumerate(words) if not {*words[max(0, place - 1) : place + 1]} & {*small}]
assert main([*changed, *(word for pair in small.items() for word in pair)]) == 0
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (150 << 20), resource.RLIM_INFINITY))
sys.exit(main(words))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="what a process has of addresses is not told")
def test_a_run_that_memory_does_not_suffice_for_names_a_batch_size_that_fits(tmp_path):
    """Real processes under a limit; the second types the command that the first has printed."""
    data, out = flat(tmp_path / "data", 256), tmp_path / "run"
    words = ["pretrain", data, "--out", out, *FLAGS, "--epochs", "1", "--batch-size", "256"]
    first = limited(*words)
    found = re.search(
        r"^diptych: out of memory with a batch of 256 pictures; (\d+) fit: type `(.*)`$", first.stderr, re.M
    )
    assert first.returncode == 2 and found and int(found[1]) in (8, 16, 32, 64), first.stderr
    second = limited(*shlex.split(found[2])[1:])
    assert second.returncode == 0, second.stderr
    card = RunFolder.open(f"{out}-{found[1]}").read_card()
    assert card["result"]["status"] == "finished" and card["config"]["train"]["batch_size"] == int(found[1])


def limited(*words):
    return subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, words)], capture_output=True, text=True, timeout=300
    )
