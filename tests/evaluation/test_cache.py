import os
from importlib import metadata

import pytest
import torch

from diptych.errors import RunFolderError
from diptych.evaluation.cache import FeatureCache, digest_of

VALUES = torch.arange(12.0).reshape(4, 3)


def never():
    raise AssertionError("computed again")


def test_what_was_computed_is_read_again_and_by_another_process_too(tmp_path):
    cache = FeatureCache(tmp_path / "features")
    assert cache.get(("a", 1), lambda: VALUES) is VALUES
    assert torch.equal(FeatureCache(tmp_path / "features").get(("a", 1), never), VALUES)
    assert torch.equal(cache.get(("a", 2), lambda: VALUES + 1), VALUES + 1)  # other parts
    assert torch.equal(cache.get(("a", 1), never), VALUES)


def test_a_damaged_file_is_computed_again(tmp_path):
    cache = FeatureCache(tmp_path)
    cache.get(("a",), lambda: VALUES)
    path = next(tmp_path.iterdir())
    for content in (b"", path.read_bytes()[:-1], b"\x80\x04N."):
        path.write_bytes(content)
        assert torch.equal(cache.get(("a",), lambda: VALUES), VALUES)
        assert torch.equal(cache.get(("a",), never), VALUES)


def test_what_was_not_used_for_longest_goes_first(tmp_path):
    cache = FeatureCache(tmp_path, limit=400)  # of files of about 120 bytes each
    for number in range(3):
        cache.get((number,), lambda number=number: VALUES + number)
        for path in tmp_path.iterdir():  # as if much time had gone by
            os.utime(path, ns=(0, path.stat().st_mtime_ns - 10**12))
    assert torch.equal(cache.get((0,), never), VALUES)
    cache.get((3,), lambda: VALUES + 3)
    assert torch.equal(cache.get((0,), never), VALUES) and torch.equal(cache.get((3,), never), VALUES + 3)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 400
    with pytest.raises(AssertionError, match="computed again"):
        cache.get((1,), never)
    cache.get(("large",), lambda: torch.zeros(200))
    with pytest.raises(AssertionError, match="computed again"):
        cache.get(("large",), never)  # larger than all may be together
    assert torch.equal(cache.get((0,), never), VALUES)


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "features").write_text("a file")
    with pytest.raises(RunFolderError, match="cannot write"):
        FeatureCache(tmp_path / "features").get(("a",), lambda: VALUES)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
def test_a_digest_tells_apart_values_types_shapes_and_orders(dtype):
    pictures = torch.arange(5000 * 3).reshape(5000, 3, 1, 1).to(dtype)
    changed = pictures.clone()
    changed[4999, 2] = 9
    others = [changed, pictures[:4999], pictures.reshape(5000, 1, 3, 1), pictures.flip(0)]
    assert digest_of(pictures) == digest_of(pictures.clone())
    assert len({digest_of(tensor) for tensor in (pictures, *others)}) == 5


def test_what_another_version_computed_is_computed_again(tmp_path, monkeypatch):
    FeatureCache(tmp_path).get(("a",), lambda: VALUES)
    monkeypatch.setattr(metadata, "version", lambda package: "9" if package == "timm" else "1")
    assert torch.equal(FeatureCache(tmp_path).get(("a",), lambda: VALUES + 1), VALUES + 1)
