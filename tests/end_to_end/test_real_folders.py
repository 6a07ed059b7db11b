"""Folders as people have them: other bands and depths, broken files, more pictures than memory, shards, huge scans."""

import io
import json
import signal
import struct
import subprocess
import sys
import tarfile
import zlib

import numpy as np
import pytest
import tifffile
import torch
from in_process import run_command
from PIL import Image
from safetensors.torch import load_file
from tiny import BIN, FLAGS, SETTINGS, flat, lines, picture, tree, wait_until

import diptych
from diptych.api import learning

TINY = SETTINGS | {"epochs": 2}


def bands(folder, names, channels=13, depth="uint16"):
    """Write TIFFs whose first band differs by folder, so that there is something to tell classes by."""
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(seed).random((20, 24, channels))
        values[..., 0] += path.parent.name == "wet"
        values = values * 5_000 if depth == "uint16" else values - 0.5
        layout = {"planarconfig": "contig"} if channels > 1 else {}
        tifffile.imwrite(path, values.astype(depth).squeeze(), photometric="minisblack", **layout)
    return folder


def sharded(folder, count, shards):
    """Write pictures into tar shards, as webdataset does: with something else beside each of them."""
    folder.mkdir(parents=True)
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:03}.tar", "w") as archive:
            for number in range(shard, count, shards):
                content = io.BytesIO()
                Image.fromarray(picture(number)).save(content, "PNG")
                for name, data in ((f"{number:03}.png", content.getvalue()), (f"{number:03}.cls", b"1")):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return folder


def losses(run):
    return [(record["step"], record["loss"]) for record in lines(run / "metrics.jsonl")]


def card(run):
    return json.loads((run / "run.json").read_text())


# Any picture


@pytest.mark.parametrize(("channels", "depth"), [(13, "uint16"), (2, "float32"), (1, "uint16")])
def test_bands_and_depths_from_a_folder_to_a_proof(tmp_path, channels, depth):
    names = [f"{kind}/{number:02}.tif" for kind in ("dry", "wet") for number in range(10)]
    data, out = bands(tmp_path / "tiles", names, channels, depth), tmp_path / "run"
    kept = {"image_size", "backbone", "batch_size", "projector_layers", "projector_width", "predictor_width"}
    words = [word for name in kept for word in (f"--{name.replace('_', '-')}", str(SETTINGS[name]))]
    code, _, err = run_command("pretrain", data, "--out", out, *words, "--epochs", "1")
    assert code == 0, err
    config = card(out)["config"]
    assert (config["channels"], config["depth"]) == (channels, depth)
    assert f"chose --channels {channels}" in err and f"chose --depth {depth}" in err and "measured 20 pictures" in err
    assert "chose --policy" in err
    made = json.loads((out / "backbone.json").read_text())["preprocessing"]
    assert len(made["mean"]) == len(made["std"]) == channels and made["depth"] == depth
    assert len(made["low"]) == (channels if depth == "float32" else 0)
    code, told, err = run_command("evaluate", out, data)
    assert code == 0, err
    assert told.startswith(("Pretraining helped", "No evidence", "Pretraining hurt"))
    embedded = diptych.load(out).embed([data / names[0], data / names[-1]])
    assert embedded.shape == (2, 256) and embedded.isfinite().all() and not torch.equal(*embedded)
    assert (out / "views.png").stat().st_size > 1000


def test_sixteen_bits_reach_the_network(tmp_path):
    """Values that 8 bits cannot tell apart give other features."""
    data = tmp_path / "scans"
    data.mkdir()
    base = np.random.default_rng(0).integers(0, 60_000, (16, 16), dtype=np.uint16)
    for number in range(8):
        Image.fromarray(base + np.uint16(number)).save(data / f"{number}.png")
    diptych.pretrain(data, tmp_path / "run", **TINY, channels=1, depth="uint16")
    features = diptych.load(tmp_path / "run").embed(sorted(data.iterdir()))
    assert len(features.unique(dim=0)) == 8


def test_pictures_of_other_channels_are_left_out_with_the_flag_to_type(tmp_path):
    data = bands(flat(tmp_path / "mixed"), ["bands.tif"])
    code, _, err = run_command("pretrain", data, "--out", tmp_path / "run", *FLAGS)
    assert code == 2 and "bands.tif: it has 13 channels and this run takes 3: type --channels 13" in err
    assert err.rstrip().endswith("--max-bad 0.112")
    code, _, err = run_command(
        "pretrain", data, "--out", tmp_path / "run", *FLAGS, "--epochs", "1", "--max-bad", "0.112"
    )
    assert code == 0, err
    assert [record["name"] for record in lines(tmp_path / "run" / "quarantine.jsonl")] == ["bands.tif"]


def test_statistics_of_the_wrong_length_are_refused(tmp_path):
    code, _, err = run_command(
        "pretrain", flat(tmp_path / "x"), "--out", tmp_path / "run", *FLAGS, "--mean", "0.5", "--std", "0.2"
    )
    assert code == 2 and "--mean needs 3 numbers, one for each channel, not 1" in err


def test_a_huge_scan_becomes_many_pictures(tmp_path):
    data = tmp_path / "slides"
    data.mkdir()
    scan = np.random.default_rng(0).integers(0, 256, (320, 512, 3), dtype=np.uint8)
    tifffile.imwrite(data / "slide.tif", scan, tile=(64, 64), compression="zlib", photometric="rgb")
    result = diptych.pretrain(data, tmp_path / "run", **TINY, tile=64)
    assert result.steps == 2 * 40 // 4
    assert "1 pictures are cut into 40 tiles of 64 px" in (tmp_path / "run" / "log.txt").read_text()
    assert json.loads((tmp_path / "run" / "backbone.json").read_text())["preprocessing"]["tile"] == 64


def test_small_views_are_made_and_learned_from(tmp_path):
    data = flat(tmp_path / "pictures")
    diptych.pretrain(data, tmp_path / "two", **TINY)
    diptych.pretrain(data, tmp_path / "more", **TINY, local_views=2, local_size=8)
    assert card(tmp_path / "more")["config"]["views"]["local_views"] == 2
    assert losses(tmp_path / "two") != losses(tmp_path / "more")


@pytest.mark.parametrize(("backbone", "works"), [("timm:test_vit.r160_in1k", True), ("timm:test_maxvit", False)])
def test_small_views_and_transformers(tmp_path, backbone, works):
    words = ["pretrain", flat(tmp_path / "x"), "--out", tmp_path / "run", *FLAGS, "--epochs", "1", "--image-size", "64"]
    code, _, err = run_command(*words, "--backbone", backbone, "--local-views", "1", "--local-size", "32")
    assert (code == 0) if works else (code == 2 and err.count("\n") == 1 and "--local-size" in err), err


# Broken files


def test_broken_pictures_are_replaced_alike_wherever_pictures_are_kept(tmp_path):
    data = flat(tmp_path / "pictures", 13)
    (data / "03.png").write_bytes(b"no picture")
    settings = TINY | {"max_bad": 0.1, "store_dir": str(tmp_path / "stores")}
    for store in ("memory", "disk", "none"):
        for again in ("first", "again"):
            diptych.pretrain(data, tmp_path / f"{store}-{again}", **settings, store=store)
        assert losses(tmp_path / f"{store}-first") == losses(tmp_path / f"{store}-again")
        listed = lines(tmp_path / f"{store}-again" / "quarantine.jsonl")
        assert [record["name"] for record in listed] == ["03.png"] and "not a picture" in listed[0]["reason"]
        assert card(tmp_path / f"{store}-first")["data"]["skipped"] == 1
    assert losses(tmp_path / "memory-first") == losses(tmp_path / "disk-first")


SPOILED = {
    "cut.jpg": "cut short or damaged",
    "empty.png": "the file is empty",
    "crc.png": "cut short or damaged",
    "drawing.jpg": "not a picture, or in a format that is not read",
    "stars.jpg": "not a picture, or in a format that is not read",
    "bomb.png": "it is more than 179 million pixels",
    "holes.tif": "1 of its 400 values are NaN, infinite or marked as no data",
    "reals.tif": "floating-point pixels have no known range in whole numbers: type --depth float32",
    "bands.tif": "it has 13 channels and this run takes 3: type --channels 13",
    "gone.jpg": "cannot be opened (No such file or directory)",
}


def spoil(data):
    """Write every kind of file that gives no picture."""
    whole = io.BytesIO()
    Image.fromarray(picture(1, size=64)).save(whole, "JPEG")
    (data / "cut.jpg").write_bytes(whole.getvalue()[:700])
    (data / "empty.png").write_bytes(b"")
    content = bytearray((data / "00.png").read_bytes())
    content[-30] ^= 1
    (data / "crc.png").write_bytes(content)
    (data / "drawing.jpg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><circle r='9'/></svg>")
    (data / "stars.jpg").write_bytes(b"SIMPLE  =                    T".ljust(2880))
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    framed = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    (data / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))
    values = np.ones((20, 20), np.float32)
    tifffile.imwrite(data / "reals.tif", values)
    values[3, 4] = np.nan
    tifffile.imwrite(data / "holes.tif", values)
    bands(data, ["bands.tif"])
    (data / "gone.jpg").symlink_to("nowhere.jpg")
    Image.fromarray(picture(2)).save(data / "gif.jpg", "GIF")  # what it is called does not matter


def test_every_file_that_gives_no_picture_is_listed_with_its_reason(tmp_path):
    data, out = flat(tmp_path / "pictures", 9), tmp_path / "run"
    spoil(data)
    words = ("pretrain", data, "--out", out, *FLAGS, "--epochs", "1")
    code, _, err = run_command(*words)
    assert code == 2 and f"{len(SPOILED)} of 20 pictures cannot be read, more than --max-bad 0.01 allows" in err
    advised = err.rstrip().rpartition(" ")[2]
    code, _, err = run_command(*words, "--max-bad", advised)
    assert code == 0, err
    listed = {record["name"]: record["reason"] for record in lines(out / "quarantine.jsonl")}
    assert listed.keys() == SPOILED.keys()
    for name, reason in SPOILED.items():
        assert listed[name].startswith(reason), (name, listed[name])
    assert card(out)["data"]["pictures"] == 10


def test_a_shard_with_a_flipped_byte_is_read_up_to_it_and_reported(tmp_path):
    data, out = sharded(tmp_path / "shards", 24, 2), tmp_path / "run"
    shard = data / "001.tar"
    content = bytearray(shard.read_bytes())
    with tarfile.open(shard) as archive:
        damaged = archive.getmembers()[20].offset
    content[damaged + 2] ^= 1
    shard.write_bytes(content)
    words = ("pretrain", f"{data}/*.tar", "--out", out, *FLAGS, "--epochs", "1", "--max-bad", "0.1")
    code, _, err = run_command(*words)
    assert code == 0, err
    (record,) = lines(out / "quarantine.jsonl")
    assert record["name"] == str(shard) and f"damaged at byte {damaged}" in record["reason"]
    assert "they hold 22 pictures" in err


def test_too_many_broken_pictures_stop_a_run_that_decodes_as_it_goes(tmp_path):
    data, out = flat(tmp_path / "pictures", 12), tmp_path / "run"
    for name in ("03.png", "05.png"):
        (data / name).write_bytes(b"")
    code, _, err = run_command("pretrain", data, "--out", out, *FLAGS, "--store", "none", "--max-bad", "0.1")
    assert code == 2 and "2 of 12 pictures cannot be read, more than --max-bad 0.1 allows" in err
    assert "03.png: the file is empty" in err and "05.png" in err
    assert [record["name"] for record in lines(out / "quarantine.jsonl")] in (
        ["03.png", "05.png"],
        ["05.png", "03.png"],
    )


# More pictures than memory


def test_where_pictures_are_kept_changes_nothing_else(tmp_path):
    data = flat(tmp_path / "pictures", 14)
    settings = TINY | {"store_dir": str(tmp_path / "stores")}
    runs = {store: tmp_path / store for store in ("memory", "disk", "none")}
    for store, out in runs.items():
        diptych.pretrain(data, out, **settings, store=store)
    assert losses(runs["memory"]) == losses(runs["disk"]) == losses(runs["none"])
    weights = {store: load_file(out / "backbone.safetensors") for store, out in runs.items()}
    for name, value in weights["memory"].items():
        assert torch.equal(value, weights["disk"][name]) and torch.equal(value, weights["none"][name])
    assert "kept in" in (runs["disk"] / "log.txt").read_text()
    assert "decoded anew each epoch" in (runs["none"] / "log.txt").read_text()


def test_the_pictures_that_a_run_has_met_are_known_to_its_evaluation(tmp_path):
    data = flat(tmp_path / "pictures", 12)
    labelled = tmp_path / "labelled"
    for number, path in enumerate(sorted(data.iterdir())):
        (labelled / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        (labelled / "ab"[number % 2] / path.name).write_bytes(path.read_bytes())
    for store in ("memory", "none"):
        diptych.pretrain(data, tmp_path / store, **TINY, store=store)
        found = diptych.evaluate(tmp_path / store, labelled)["data"]
        assert found["seen_in_pretraining"] == found["test_pictures"] > 0


def test_a_second_run_reads_no_picture_again_and_a_changed_folder_is_read_anew(tmp_path):
    data, stores = flat(tmp_path / "pictures"), tmp_path / "stores"
    settings = TINY | {"store": "disk", "store_dir": str(stores)}
    diptych.pretrain(data, tmp_path / "first", **settings)
    before = tree(stores)
    hidden = data / "00.png"
    content, status = hidden.read_bytes(), hidden.stat()
    hidden.write_bytes(bytes(len(content)))  # unreadable, but as large and as old as before
    import os

    os.utime(hidden, ns=(status.st_atime_ns, status.st_mtime_ns))
    diptych.pretrain(data, tmp_path / "second", **settings)
    assert tree(stores) == before and losses(tmp_path / "first") == losses(tmp_path / "second")
    hidden.write_bytes(content)
    flat(data, 9)
    diptych.pretrain(data, tmp_path / "third", **settings)
    assert len(list(stores.glob("[!.]*"))) == 1 and tree(stores) != before


LIMITED = """
import json, os, signal, sys, threading
import diptych

def resident():
    fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(fields["VmRSS"].split()[0]) * 1024

def peak(out, **settings):
    most, done, steps = [0], threading.Event(), out + "/metrics.jsonl"
    def look():
        while not done.wait(0.002):
            most.append(max(most.pop(), resident()))
            if os.path.exists(steps) and open(steps).read().count("\\n") > STEPS:
                os.kill(os.getpid(), signal.SIGTERM)
                return
    thread = threading.Thread(target=look)
    thread.start()
    diptych.pretrain(sys.argv[1], out, **settings)
    done.set(); thread.join()
    return most[0]

STEPS = 60  # of 4 pictures: they lie all over the store, and 47 MB of it have been read
settings = json.loads(sys.argv[3])
few = max(peak(sys.argv[2] + name, **settings, limit=40) for name in ("-1", "-2"))
print(peak(sys.argv[2], **settings) - few)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_run_over_twenty_times_the_memory_limit_stays_within_it(tmp_path):
    """What a run over many pictures takes beyond a run over few: the network and its activations are the same."""
    data, out = tmp_path / "pictures", tmp_path / "run"
    data.mkdir()
    for number in range(2450):  # of 3 × 256 × 256 bytes: 482 MB
        Image.new("RGB", (256, 256), (number % 256, number // 256, 99)).save(data / f"{number:04}.png")
    settings = TINY | {"image_size": 256, "epochs": 2, "batch_size": 4, "backbone": "timm:test_vit.r160_in1k"}
    settings |= {"memory_limit": "24MB", "store_dir": str(tmp_path / "stores"), "blur": 0.0, "jitter": 0.0}
    words = [sys.executable, "-c", LIMITED, str(data), str(out), json.dumps(settings)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "kept in" in (out / "log.txt").read_text()
    assert int(done.stdout.split()[-1]) <= 24e6, done.stdout


RESUME = """
import json, sys, diptych
from diptych.training import loop
loop.CHECKPOINT_SECONDS = 0.2
print(diptych.pretrain(sys.argv[1], sys.argv[2], **json.loads(sys.argv[3])).status)
"""


@pytest.mark.parametrize("kind", ["none", "disk", "shards"])
def test_a_killed_run_goes_on_to_the_same_end_however_its_pictures_come(tmp_path, kind):
    if kind == "shards":
        data = str(sharded(tmp_path / "shards", 14, 3) / "*.tar")
    else:
        data = str(flat(tmp_path / "pictures", 14))
    settings = SETTINGS | {"epochs": 15, "store_dir": str(tmp_path / "stores")}
    settings |= {} if kind == "shards" else {"store": kind}
    diptych.pretrain(data, tmp_path / "whole", **settings)
    out = tmp_path / "run"
    words = [sys.executable, "-c", RESUME, data, str(out), json.dumps(settings)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    wait_until(lambda: (out / "checkpoints" / "last").exists() and len(losses(out)) > 4, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert diptych.resume(out).status == "finished"
    assert losses(out) == losses(tmp_path / "whole")
    one, other = (load_file(run / "backbone.safetensors") for run in (out, tmp_path / "whole"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_goes_on_with_the_pictures_that_it_began_with(tmp_path):
    """Decoded as it goes, a run counts a broken picture; decoded beforehand, it does not: no silent change of order."""
    data, out = flat(tmp_path / "pictures", 13), tmp_path / "run"
    (data / "03.png").write_bytes(b"")
    settings = SETTINGS | {"epochs": 15, "store": "none", "max_bad": 0.1, "store_dir": str(tmp_path / "stores")}
    process = subprocess.Popen([sys.executable, "-c", RESUME, str(data), str(out), json.dumps(settings)])
    wait_until(lambda: (out / "checkpoints" / "last").exists() and len(losses(out)) > 4, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    code, _, err = run_command("pretrain", "--resume", out, "--store", "memory")
    assert code == 2 and "begun with 13 pictures, and now there are 12: resume it with --store none" in err
    assert diptych.resume(out).status == "finished"


# Shards


def test_shards_are_learned_from_in_another_order_each_epoch(tmp_path):
    data, out = sharded(tmp_path / "shards", 15, 3), tmp_path / "run"
    code, told, err = run_command("pretrain", f"{data}/{{000..002}}.tar", "--out", out, *FLAGS, "--epochs", "2")
    assert code == 0, err
    assert "they hold 15 pictures" in err and "2 epochs" in told
    assert card(out)["data"]["pictures"] == 15 and [step for step, _ in losses(out)] == list(range(6))
    assert not (out / "pictures.npy").exists() and (out / "pictures-0.u64").stat().st_size <= 15 * 8


def test_what_does_not_go_with_shards_is_refused(tmp_path):
    data = sharded(tmp_path / "shards", 8, 2)
    code, _, err = run_command("pretrain", f"{data}/*.tar", "--out", tmp_path / "run", *FLAGS, "--tile", "64")
    assert code == 2 and "--tile is not for tar shards" in err
    code, _, err = run_command("pretrain", "memory://x/*.tar", "--out", tmp_path / "run", *FLAGS)
    assert code == 2 and err.count("\n") == 1


@pytest.mark.parametrize("kind", ["disk", "none", "shards"])
def test_two_processes_share_pictures_however_they_come(tmp_path, kind):
    data = f"{sharded(tmp_path / 'shards', 16, 4)}/*.tar" if kind == "shards" else flat(tmp_path / "pictures", 16)
    out = tmp_path / "run"
    storage = ["--store-dir", tmp_path / "stores"] + ([] if kind == "shards" else ["--store", kind])
    words = ["-m", "diptych", "pretrain", data, "--out", out, *FLAGS, "--epochs", "2", "--device", "cpu", *storage]
    done = subprocess.run(
        [BIN / "torchrun", "--nproc-per-node", "2", "--standalone", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert card(out)["result"]["steps"] == 8
    assert sorted(path.name for path in out.glob("pictures*")) == (
        ["pictures.npy"] if kind == "disk" else ["pictures-0.u64", "pictures-1.u64"]
    )
    if kind == "disk":
        assert len(list((tmp_path / "stores").glob("[!.]*"))) == 1


# Looking before learning


def test_views_of_every_policy_on_one_sheet(tmp_path):
    out = tmp_path / "policies.png"
    code, told, err = run_command("preview", flat(tmp_path / "x"), "--policies", "--out", out, "--image-size", "32")
    assert (code, told) == (0, f"{out}\n"), err
    with Image.open(out) as sheet:
        assert sheet.height > 400


def test_the_sheet_shows_policies_as_they_are_whatever_was_chosen(tmp_path):
    data = tmp_path / "gray"
    data.mkdir()
    for number in range(4):
        Image.fromarray(picture(number)).convert("L").save(data / f"{number}.png")
    drawn = learning.policy_configs(learning.order("simsiam", data, None, {"blur": 0.9}).config)
    assert (drawn["natural"].views.rotate, drawn["natural"].views.noise, drawn["natural"].views.blur) == (0, 0, 0.5)
    assert drawn["overhead"].views.rotate90 == 0.75 and drawn["grayscale"].views.noise > 0
    assert all(config.channels == 1 and config.views.hue == 0 for config in drawn.values())


def test_an_audit_names_what_a_run_would_stumble_over(tmp_path):
    data = flat(tmp_path / "pictures", 6)
    (data / "broken.jpg").write_bytes(b"")
    (data / "copy.png").write_bytes((data / "01.png").read_bytes())
    code, told, err = run_command("audit", data, "--out", tmp_path / "audit", "--json")
    assert code == 0, err
    assert json.loads(told) == json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert "broken.jpg" in told and "copy.png" in told
    code, told, _ = run_command("audit", data, "--out", tmp_path / "audit")
    assert code == 0 and len(told.splitlines()) <= 25 and "audit.html" in told
