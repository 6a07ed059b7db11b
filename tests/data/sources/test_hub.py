import logging
import subprocess
import sys
import time
import warnings

import datasets
import huggingface_hub
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from picture_files import encoded

from diptych.data.decoding.pixels import BadPicture
from diptych.data.sources.hub import HubSource, open_hub
from diptych.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Where ``datasets`` keeps its tables."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_CACHE_HOME", tmp_path / "home")
    return tmp_path / "cache"


def table(count, **columns):
    pictures = [{"bytes": encoded("PNG", number), "path": f"{number}.png"} for number in range(count)]
    features = {"image": datasets.Image(), "label": ClassLabel(names=["cat", "dog"])}
    values = {"image": pictures, "label": [number % 2 for number in range(count)]}
    for name, (feature, cells) in columns.items():
        features[name], values[name] = feature, cells
    return Dataset.from_dict(values, features=Features(features))


@pytest.fixture
def write(tmp_path):
    """Writes the parts of a data set as Parquet files."""

    def write(**parts):
        folder = tmp_path / "mine" / "data"
        folder.mkdir(parents=True)
        datasets.disable_progress_bars()
        for name, part in parts.items():
            part.to_parquet(folder / f"{name}-00000-of-00001.parquet")
        datasets.enable_progress_bars()
        return folder.parent

    return write


def message(data):
    with pytest.raises(DataError) as caught:
        open_hub(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_of_parquet(write):
    folder = write(train=table(6), test=table(2), validation=table(3))
    splits = open_hub(f"hub:{folder}")
    train, test = splits.train, splits.test
    assert len(train) == 6 and len(test) == 2 and train.name == f"hub:{folder}/train"
    assert train.classes == test.classes == ("cat", "dog") and [train.label(i) for i in range(3)] == [0, 1, 0]
    assert train.encoded(3) == encoded("PNG", 3) and train.read(3).shape == (3, 24, 32)
    assert train.name_of(3) == "000003 (3.png)" and train.group(0) is None
    assert splits.note == (
        f"hub:{folder} holds 6 pictures to learn from and 2 to test on: pretraining uses only the first, 2 classes "
        "(column label); 3 pictures of the split validation left out"
    )


def test_validation_is_the_test_where_there_is_none(write):
    splits = open_hub(f"hub:{write(train=table(3), validation=table(2))}")
    assert len(splits.test) == 2 and "the split validation is tested on, as there is no test" in splits.note


def test_splits_of_other_names_are_taken_together(write):
    splits = open_hub(f"hub:{write(test=table(3), validation=table(2))}")
    assert len(splits.train) == 5 and splits.test is None and "(validation, test) together" in splits.note


def test_one_parquet_file_with_other_columns(write):
    groups, texts = ["p", "p", None], ["b", "a", "b"]
    part = table(3, group=(Value("string"), groups), second=(datasets.Image(), [{"bytes": b"x", "path": None}] * 3))
    part = part.remove_columns("label").add_column("label", texts)
    splits = open_hub(f"hub:{write(train=part)}/data/train-00000-of-00001.parquet")
    source = splits.train
    assert [source.group(i) for i in range(3)] == groups and source.classes == ("a", "b")
    assert [source.label(i) for i in range(3)] == [1, 0, 1] and splits.test is None
    assert "of the columns of pictures (image, second) only image is used" in splits.note


def test_bytes_that_are_not_declared_as_pictures(write):
    plain = Dataset.from_dict(
        {"img": [encoded("PNG", 1)], "label": [3]}, features=Features(img=Value("binary"), label=Value("int8"))
    )
    source = open_hub(f"hub:{write(train=plain)}").train
    assert source.read(0).shape == (3, 24, 32) and source.classes == ("3",)


def test_labels_that_are_not_given(write):
    part = Dataset.from_dict(
        {"image": [{"bytes": encoded(), "path": None}] * 2, "label": [-1, -1]}, features=table(1).features
    )
    splits = open_hub(f"hub:{write(train=table(2), test=part)}")
    assert splits.test.label(0) is None and splits.test.classes == () and splits.train.label(1) == 1


def test_a_folder_of_pictures(make_folder):
    folder = make_folder("train/cat/1.png", "train/dog/2.png", "test/dog/3.png")
    splits = open_hub(f"hub:{folder}")
    source = splits.train
    assert source.classes == ("cat", "dog") and len(splits.test) == 1 and splits.test.label(0) == 1
    assert source.encoded(0) == folder / "train" / "cat" / "1.png" and source.name_of(0) == "000000 (cat/1.png)"
    (folder / "train" / "cat" / "1.png").unlink()
    with pytest.raises(BadPicture, match="No such file"):
        source.read(0)
    assert source.read(1).shape == (3, 24, 32)


def test_a_broken_picture_and_an_empty_row_are_bad_pictures(write):
    cells = [{"bytes": b"nothing", "path": None}, None, {"bytes": encoded(), "path": None}]
    source = open_hub(
        f"hub:{write(train=Dataset.from_dict({'image': cells}, features=Features(image=datasets.Image())))}"
    ).train
    with pytest.raises(BadPicture, match="^000000: not a picture"):
        source.read(0)
    with pytest.raises(BadPicture, match="^000001: its row holds no picture"):
        source.read(1)
    assert source.read(2).shape == (3, 24, 32) and source.classes == () and source.label(0) is None


def test_a_downloaded_row_cannot_name_any_file_of_this_machine(make_folder):
    folder = make_folder("in/1.png", "out/2.png")
    paths = [f"{folder}/in/1.png", f"{folder}/in/../out/2.png", "/dev/zero"]
    rows = Dataset.from_dict(
        {"image": [{"bytes": None, "path": path} for path in paths]},
        features=Features(image=datasets.Image(decode=False)),
    )
    source = HubSource("x", rows, ("image", None), None, (), "0" * 64, (folder / "in",))
    assert source.read(0).shape == (3, 24, 32)
    for place in (1, 2):
        with pytest.raises(BadPicture, match="its row names a file outside the data set"):
            source.read(place)


def test_the_fingerprint_outlives_the_cache_and_follows_the_pictures(write, monkeypatch, tmp_path):
    folder = write(train=table(3), test=table(2))
    first = open_hub(f"hub:{folder}")
    assert first.train.fingerprint != first.test.fingerprint
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "another")
    assert open_hub(f"hub:{folder}").train.fingerprint == first.train.fingerprint
    table(4).to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    assert open_hub(f"hub:{folder}").train.fingerprint != first.train.fingerprint


def test_nothing_is_said_and_everything_is_left_as_it_was(write, capfd):
    folder = write(train=table(3))
    before = (
        datasets.utils.logging.get_verbosity(),
        datasets.are_progress_bars_disabled(),
        huggingface_hub.utils.are_progress_bars_disabled(),
        datasets.config.HF_HUB_OFFLINE,
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS,
        list(warnings.filters),
        logging.getLogger().level,
    )
    capfd.readouterr()
    open_hub(f"hub:{folder}")
    message("hub:nobody-xyz/does-not-exist-here")
    assert capfd.readouterr() == ("", "")
    assert before == (
        datasets.utils.logging.get_verbosity(),
        datasets.are_progress_bars_disabled(),
        huggingface_hub.utils.are_progress_bars_disabled(),
        datasets.config.HF_HUB_OFFLINE,
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS,
        list(warnings.filters),
        logging.getLogger().level,
    )


def test_a_name_that_the_hub_does_not_know_or_no_network():
    start = time.monotonic()
    said = message("hub:nobody-xyz/does-not-exist-here")
    assert "cannot reach the Hugging Face Hub" in said or "has no data set nobody-xyz/does-not-exist-here" in said
    assert time.monotonic() - start < 30
    assert "is not the name of a data set" in message("hub:a/b/c")
    assert "names no data set" in message("hub:")


def test_what_is_no_data_set_of_pictures(write, tmp_path):
    assert "there is no ./gone" in message("hub:./gone")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing")
    assert "cannot read hub:" in message(f"hub:{tmp_path}/broken.parquet")
    folder = write(train=Dataset.from_dict({"text": ["a"], "n": np.arange(1)}))
    assert (
        message(f"hub:{folder}")
        == f"hub:{folder} has no column of pictures (it has text, n); give a data set that does"
    )


def test_other_readers_are_not_let_in(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "train.txt").write_text("x")
    assert "is read by 'text', which is not let in" in message(f"hub:{tmp_path}/mine")


def test_a_script_is_not_run(write, tmp_path):
    folder = write(train=table(1))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "scripts are no longer supported" in message(f"hub:{folder}")
    assert not (tmp_path / "ran").exists()


def test_without_the_package():
    code = (
        "import sys; sys.modules['datasets'] = None\nfrom diptych.data.sources.hub import HubSource, open_hub\n"
        "try: open_hub('hub:a/b')\nexcept Exception as error: print(type(error).__name__, error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "DataError hub:a/b needs `pip install 'diptych[hub]'`\n"
