import os

import pytest
from picture_files import encoded


@pytest.fixture
def make_folder(tmp_path):
    """Writes pictures (or the bytes given) under the names given, and returns their folder."""

    def make(*names, root="pictures", **contents):
        folder = tmp_path / root
        folder.mkdir(exist_ok=True)
        for seed, name in enumerate(names):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents.get(name) or encoded("PNG" if name.endswith("png") else "JPEG", seed))
        return folder

    return make


@pytest.fixture
def nobody():
    """Lose the super-user's right to read everything, for the test."""
    if os.geteuid() == 0:
        os.seteuid(65534)
        yield
        os.seteuid(0)
    else:
        yield
