import io
import struct
import subprocess
import sys
import tarfile
import tracemalloc
from collections import Counter

import fsspec
import pytest
from fsspec.registry import known_implementations
from picture_files import encoded
from tar_files import flip, special, write_tar

from diptych.data.decoding.pixels import BadPicture
from diptych.data.sources.shards import count, find_shards, fingerprint, is_shards, members, open_shard
from diptych.errors import DataError

LONG = "a/" + "long" * 60 + "/ü.png"
PICTURES = {"0001.jpg": b"one" * 400, "./0002.PNG": b"two", LONG: b"three" * 99, "empty.png": b""}
BESIDE = {"0001.cls": b"7", "0001.json": b"{}", ".hidden.png": b"x", "folder.png/0001.txt": b"x"}


def walked(path, left_out=None):
    """What ``members`` finds, and the contents it points to."""
    with open(path, "rb") as file:
        found = list(members(file, str(path), left_out))
        contents = {}
        for member in found:
            file.seek(member.offset)
            contents[member.name] = file.read(member.size)
    return contents


@pytest.fixture
def touch(tmp_path):
    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            write_tar(tmp_path / name, {"1.png": name.encode()})
        return tmp_path

    return make


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_pictures_of_a_webdataset_shard_in_every_form(tmp_path, form):
    shown = {name.removeprefix("./"): content for name, content in PICTURES.items()}
    if form == tarfile.USTAR_FORMAT:  # which holds names of 255 bytes, in two parts
        shown = {("b" * 90 + "/" + "c" * 90 + ".png" if name == LONG else name): shown[name] for name in shown}
    path = write_tar(tmp_path / "a.tar", shown | BESIDE, format=form)
    assert walked(path) == shown


def test_what_other_tar_programs_write(tmp_path):
    for name, content in PICTURES.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(content)
    for form in ("gnu", "pax", "ustar", "v7"):
        path = tmp_path / f"{form}.tar"
        long = ["--exclude=a"] if form in ("ustar", "v7") else []
        subprocess.run(["tar", "-C", tmp_path / "in", f"--format={form}", *long, "-cf", path, "."], check=True)
        wanted = {name.removeprefix("./"): content for name, content in PICTURES.items() if not long or name != LONG}
        assert walked(path) == wanted


def test_links_devices_sparse_files_and_unsafe_names_are_left_out_and_counted(tmp_path):
    extra = [
        special("link.png", tarfile.SYMTYPE, "/etc/passwd"),
        special("hard.png", tarfile.LNKTYPE, "ok.png"),
        special("device.png", tarfile.CHRTYPE),
        special("block.png", tarfile.BLKTYPE),
        special("pipe.png", tarfile.FIFOTYPE),
        special("folder.png", tarfile.DIRTYPE),
        special("last.png", tarfile.REGTYPE),
    ]
    unsafe = {"../evil.png": b"x", "a/../../evil.png": b"x", "/etc/evil.png": b"x"}
    left_out = Counter()
    assert walked(write_tar(tmp_path / "a.tar", unsafe | {"ok.png": b"y"}, extra), left_out) == {
        "ok.png": b"y",
        "last.png": b"",
    }
    assert left_out == {"links or devices": 5, "absolute paths, or paths that climb out with ..": 3}


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_sparse_files_are_passed_over(tmp_path, form):
    with open(tmp_path / "sparse.png", "wb") as file:
        for hole in range(40):  # more than fit into one header
            file.seek(hole * 65536)
            file.write(b"x" * 4096)
    (tmp_path / "z.png").write_bytes(b"after")
    path = tmp_path / "a.tar"
    names = ["sparse.png", "z.png"]
    subprocess.run(["tar", "-C", tmp_path, f"--format={form}", "-S", "-cf", path, *names], check=True)
    if path.stat().st_size > 2_000_000:
        pytest.skip("the file system knows no holes")
    left_out = Counter()
    assert walked(path, left_out) == {"z.png": b"after"}
    assert left_out == {"links or devices": 1}


def test_sizes_that_octal_digits_cannot_hold(tmp_path):
    header = bytearray(tarfile.TarInfo("huge.png").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\x80" + (9 << 30).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    path = tmp_path / "a.tar"
    with open(path, "wb") as file:  # a hole: 9 GiB that take no room
        file.write(header)
        file.seek(512 + (9 << 30))
        file.write(tarfile.TarInfo("next.png").tobuf() + bytes(1024))
    with open(path, "rb") as file:
        found = list(members(file, "a.tar"))
    assert [(member.name, member.size) for member in found] == [("huge.png", 9 << 30), ("next.png", 0)]


@pytest.mark.parametrize("place", [0, 130, 150, 156, 300])
def test_a_flipped_byte_of_a_header_ends_the_shard_and_is_named(tmp_path, place):
    path = write_tar(tmp_path / "a.tar", {f"{number}.png": b"x" * 600 for number in range(4)})
    second = 512 + 1024
    flip(path, second + place)
    seen = []
    with open(path, "rb") as file, pytest.raises(BadPicture) as caught:
        seen.extend(member.name for member in members(file, str(path)))
    assert seen == ["0.png"] and caught.value.name == str(path)
    assert f"damaged at byte {second} (" in caught.value.reason and "its rest is skipped" in caught.value.reason


def broken(kind):
    """The bytes of a shard with a good member and something broken behind it, and where that is."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("1.png", "2.png"):
            member = tarfile.TarInfo(name)
            member.size = 600
            archive.addfile(member, io.BytesIO(b"x" * 600))
    whole, second = buffer.getvalue(), 512 + 1024
    if kind == "cut in a header":
        return whole[: second + 100], second
    if kind == "cut in a picture":
        return whole[: second + 700], second
    if kind == "a header of zeros":
        return whole[:second] + bytes(512) + whole[second + 512 :], second
    long_name = special("x", tarfile.GNUTYPE_LONGNAME)
    long_name.size = 1 << 21
    return whole[:second] + long_name.tobuf() + bytes(1 << 21), second


@pytest.mark.parametrize("kind", ["cut in a header", "cut in a picture", "a header of zeros", "a name without end"])
def test_damage_is_told_with_its_place(kind):
    content, place = broken(kind)
    walk = members(io.BytesIO(content), "a.tar")
    assert next(walk).name == "1.png"
    with pytest.raises(BadPicture, match=f"a.tar: the shard is damaged at byte {place} "):
        next(walk)


@pytest.mark.parametrize(
    "record", [b"5 path", b"0 path=y\n", b"x path=y\n", b"99999999999999 a=b\n", b"12 size=-9\n\0"]
)
def test_no_pax_record_is_trusted(record):
    member = special("x", tarfile.XHDTYPE)
    member.size = len(record)
    after = tarfile.TarInfo("1.png").tobuf()
    with pytest.raises(BadPicture, match="damaged at byte"):
        list(members(io.BytesIO(member.tobuf() + record.ljust(512, b"\0") + after + bytes(1024)), "a.tar"))


def test_not_a_tar_file(tmp_path):
    with pytest.raises(BadPicture, match="damaged at byte 0 "):
        list(members(io.BytesIO(encoded("PNG") * 10), "a.tar"))
    assert list(members(io.BytesIO(b""), "a.tar")) == []


def test_random_damage_never_raises_anything_else(tmp_path):
    whole = write_tar(tmp_path / "a.tar", PICTURES, format=tarfile.PAX_FORMAT).read_bytes()
    for place in range(0, len(whole), 37):
        content = bytearray(whole)
        content[place] ^= 0x55
        try:
            list(members(io.BytesIO(content), "a.tar"))
        except BadPicture as bad:
            assert "damaged at byte" in bad.reason  # noqa: PT017


def test_memory_does_not_grow_with_the_members(tmp_path):
    def peak(number):
        path = write_tar(tmp_path / f"{number}.tar", {f"{i:08d}.png": b"x" for i in range(number)})
        with open(path, "rb") as file:
            tracemalloc.start()
            assert sum(1 for _ in members(file, "a.tar")) == number
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        return most

    assert peak(4000) < peak(100) + 20_000


def test_patterns_ranges_and_lists(touch):
    root = touch("a/002.tar", "a/000.tar", "a/001.tar", "b/x.tar", "a/note.txt")
    three = [f"{root}/a/00{number}.tar" for number in range(3)]
    (root / "list.txt").write_text(f"a/001.tar\n\n{three[0]}\n a/00{{1..2}}.tar \n")
    for data in (f"{root}/a/*.tar", f"{root}/a/{{000..002}}.tar", f"{root}/list.txt"):
        assert is_shards(data) and find_shards(data) == three
    assert find_shards(f"{root}/**/*.tar") == [*three, f"{root}/b/x.tar"]
    assert find_shards(f"{root}/a/{{0..0}}{{0..0}}{{0..1}}.tar") == three[:2]


def test_a_shard_under_two_names_is_read_once(touch):
    root = touch("a.tar")
    (root / "b.tar").symlink_to(root / "a.tar")
    assert len(find_shards(f"{root}/*.tar")) == 1


def test_ranges_keep_their_zeros(touch):
    root = touch(*[f"s-{number:03d}.tar" for number in range(8, 12)], "s-8.tar", "s-9.tar", "s-10.tar")
    names = [path.rpartition("/")[2] for path in find_shards(f"{root}/s-{{008..011}}.tar")]
    assert names == ["s-008.tar", "s-009.tar", "s-010.tar", "s-011.tar"]
    assert len(find_shards(f"{root}/s-{{8..10}}.tar")) == 3


def test_what_is_not_shards(touch, make_folder):
    root = touch("a.tar", "odd[1].tar")
    (root / "pictures.txt").write_text("a.tar\nb.png\n")
    (root / "empty.txt").write_text("\n")
    (root / "binary.txt").write_bytes(encoded("PNG"))
    names = ("a.tar", "odd[1].tar", "pictures.txt", "empty.txt", "binary.txt", "missing.txt", "missing.tar", "*.zip")
    assert [name for name in names if is_shards(f"{root}/{name}")] == []
    assert not is_shards("cifar10") and not is_shards("hub:x/y") and not is_shards(str(root))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("none-*.tar", "finds no tar files; check the path, and quote patterns"),
        ("*.tar.gz", "is compressed, and cannot be read from a position: use plain .tar shards"),
        ("{0..3}.tar", r"there is no file .*/0.tar nor 2 others, which .*\{0..3\}.tar names"),
        ("gone.txt", r"there is no file .*/gone.tar, which .*gone.txt names"),
        ("packed.txt", r"x.tgz, which .*packed.txt names, is compressed"),
        ("{0..99999999}.tar", "more than 1,000,000 shards"),
        ("none.txt", "cannot read .*none.txt .No such file"),
    ],
)
def test_shards_that_are_not_there(touch, data, message):
    root = touch("1.tar")
    (root / "gone.txt").write_text("1.tar\ngone.tar\n")
    (root / "packed.txt").write_text("1.tar\nx.tgz\n")
    with pytest.raises(DataError, match=message) as caught:
        find_shards(f"{root}/{data}")
    assert "\n" not in str(caught.value)


@pytest.fixture
def memory(touch):
    files = fsspec.filesystem("memory")
    root = touch("000.tar", "001.tar")
    for name in ("000.tar", "001.tar"):
        files.pipe(f"/shards/{name}", (root / name).read_bytes())
    yield files
    files.rm("/shards", recursive=True)


def test_urls(memory, tmp_path):
    both = ["memory:///shards/000.tar", "memory:///shards/001.tar"]
    assert is_shards("memory://shards/*.tar") and is_shards(both[0])
    assert find_shards("memory:///shards/*.tar") == both == find_shards("memory:///shards/{000..001}.tar")
    assert find_shards(both[1]) == both[1:]
    (tmp_path / "list.lst").write_text("\n".join(both))
    assert find_shards(str(tmp_path / "list.lst")) == both
    with open_shard(both[1]) as file:
        assert [member.name for member in members(file, both[1])] == ["1.png"]
    assert fingerprint(both) == fingerprint(sorted(map(str, tmp_path.glob("*.tar"))))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("memory://nothing/*.tar", "finds no tar files"),
        ("memory://shards/a.zip", "memory://shards/a.zip is not a tar file; give shards, such as memory://shards/"),
        ("memroy://shards/*.tar", "cannot read memroy://shards/.*; did you mean 'memory'"),
        ("https://localhost/a.tar.gz?token=1", "is compressed"),
    ],
)
def test_urls_that_lead_nowhere(data, message):
    with pytest.raises(DataError, match=message):
        find_shards(data)


def test_a_file_system_that_is_not_installed(monkeypatch):
    known = {"class": "no_such_package.FileSystem", "err": "Install no_such_package to read this"}
    monkeypatch.setitem(known_implementations, "strange", known)
    with pytest.raises(DataError, match="needs another package: Install no_such_package to read this .pip"):
        find_shards("strange://host/*.tar")
    for attempt in (open_shard, lambda shard: fingerprint([shard])):
        with pytest.raises(DataError, match="needs another package"):
            attempt("strange://host/x.tar")


def test_local_shards_need_no_fsspec(touch):
    root = touch("a.tar")
    code = (
        "import sys; sys.modules['fsspec'] = None; from diptych.data.sources.shards import *; "
        f"print(count(find_shards('{root}/*.tar')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


def test_counting_by_headers_alone(tmp_path):
    whole = [write_tar(tmp_path / f"{number}.tar", PICTURES | BESIDE) for number in range(2)]
    done = []
    assert count(map(str, whole), done.append) == 2 * len(PICTURES)
    assert done == [1, 2]
    damaged = write_tar(tmp_path / "z.tar", PICTURES)
    flip(damaged, 512 + 1536)
    assert count([*map(str, whole), str(damaged), str(tmp_path / "gone.tar")]) == 2 * len(PICTURES) + 1


def test_counting_what_cannot_be(tmp_path):
    with pytest.raises(DataError, match="memory://a.tar are not counted; say --limit N"):
        count(["memory://a.tar"])
    with pytest.raises(DataError, match="the shard holds no pictures that can be read: .*gone.tar.* cannot be opened"):
        count([str(tmp_path / "gone.tar")])
    links = write_tar(tmp_path / "a.tar", {}, [special("1.png", tarfile.SYMTYPE, "x")])
    with pytest.raises(DataError, match="no pictures that can be read: 1 left out .links or devices"):
        count([str(links)])


def test_the_fingerprint_changes_with_names_and_sizes_only(touch, tmp_path):
    root = touch("a.tar", "b.tar", "copy/a.tar", "copy/b.tar")
    here, copy = find_shards(f"{root}/*.tar"), find_shards(f"{root}/copy/*.tar")
    first = fingerprint(here)
    assert first == fingerprint(copy) and len(first) == 64
    assert first != fingerprint(here[:1])
    with open(here[0], "ab") as file:
        file.write(struct.pack("512x"))
    assert first != fingerprint(here)
    (root / "copy" / "a.tar").unlink()
    assert first != fingerprint(copy)
