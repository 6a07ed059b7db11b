import pytest
import torch

from diptych.data.loader import Loader
from diptych.data.stores.memory import MemoryStore
from diptych.errors import DataError


def store(count):
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 3, 2, 2).clone()
    return MemoryStore(images=images, source_indices=torch.arange(count) * 2)


def indices(loader, epoch, first_step=0):
    return [batch.indices.tolist() for batch in loader.epoch(epoch, first_step)]


def test_each_picture_at_most_once_and_the_rest_left_out():
    loader = Loader(store(23), batch_size=5, seed=0)
    batches = list(loader.epoch(0))
    assert loader.steps_per_epoch == len(batches) == 4
    seen = torch.cat([batch.indices for batch in batches])
    assert len(seen.unique()) == 20
    for batch in batches:
        assert batch.images.shape == (5, 3, 2, 2) and batch.images.dtype == torch.uint8
        assert batch.images[:, 0, 0, 0].tolist() == batch.indices.tolist()


def test_order_is_a_function_of_seed_and_epoch():
    loader = Loader(store(40), batch_size=8, seed=1)
    assert indices(loader, 2) == indices(Loader(store(40), batch_size=8, seed=1), 2)
    orders = [loader.order(0), loader.order(1), Loader(store(40), batch_size=8, seed=2).order(0)]
    assert len({tuple(order.tolist()) for order in orders}) == 3


def test_the_global_random_state_does_not_matter_and_is_left_alone():
    loader = Loader(store(40), batch_size=8, seed=1)
    torch.manual_seed(0)
    first, state = indices(loader, 0), torch.random.get_rng_state()
    torch.manual_seed(1)
    assert indices(loader, 0) == first
    torch.manual_seed(0)
    indices(loader, 0)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("first_step", range(6))
def test_going_on_in_the_middle_of_an_epoch(first_step):
    loader = Loader(store(40), batch_size=8, seed=1)
    assert indices(loader, 3, first_step) == indices(loader, 3)[first_step:]


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_each_global_batch(world):
    alone = indices(Loader(store(43), batch_size=8, seed=5), 1)
    shares = [indices(Loader(store(43), batch_size=8, seed=5, rank=rank, world=world), 1) for rank in range(world)]
    assert [sum(parts, []) for parts in zip(*shares, strict=True)] == alone


@pytest.mark.parametrize(
    ("count", "batch_size", "world", "message"),
    [
        (20, 128, 1, "larger than the 20 pictures there are; type --batch-size 20 or less"),
        (21, 128, 4, "--batch-size 20 or less"),
        (1, 128, 1, "1 picture cannot be learned from: give 2 or more"),
        (20, 10, 4, "cannot be shared evenly by 4 processes; type --batch-size 8"),
        (20, 1, 1, "type --batch-size 2 or more"),
        (20, 4, 4, "type --batch-size 8 or more"),
    ],
)
def test_batches_that_cannot_be(count, batch_size, world, message):
    with pytest.raises(DataError, match=message):
        Loader(store(count), batch_size=batch_size, seed=0, world=world)


def test_one_batch_of_everything():
    assert Loader(store(20), batch_size=20, seed=0).steps_per_epoch == 1
