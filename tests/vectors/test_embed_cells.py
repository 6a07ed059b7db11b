import numpy as np
import pytest
import torch
from test_frozen import make_run
from tiny import flat

from diptych.frozen import load
from diptych.vectors.embed import EmbedConfig, embed
from diptych.vectors.table import read_vectors


@pytest.mark.parametrize(
    ("name", "layer", "shape"), [("resnet11v2", None, (256, 4, 4)), ("resnet11v2", "1", (64, 16, 16))]
)
def test_cells_are_the_feature_map_itself(tmp_path, name, layer, shape):
    run, data = make_run(tmp_path / "run", name), flat(tmp_path / "data", 3)
    embed(run, str(data), tmp_path / "v.npy", EmbedConfig(features="cells", layer=layer), device="cpu")
    found = read_vectors(tmp_path / "v.npy")
    assert found.card.shape == shape and found.dim == np.prod(shape)
    maps = torch.tensor(found.values).unflatten(1, shape)
    backbone = load(run, "cpu")
    network, last = backbone.module, {}
    place = network.final if layer is None else network.blocks[0]
    place.register_forward_hook(lambda module, given, result: last.update(cells=result))
    pooled = backbone.embed([data / f"{number:02}.png" for number in range(3)])
    torch.testing.assert_close(maps, last["cells"].contiguous(), rtol=1e-5, atol=1e-5)
    if layer is None:  # the network ends in a plain mean over them
        torch.testing.assert_close(maps.mean(dim=(2, 3)), pooled, rtol=1e-5, atol=1e-5)
