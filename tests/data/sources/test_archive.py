import gzip
import io
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from picture_files import encoded
from tar_files import special, write_tar

from diptych.data.decoding.pixels import BadPicture
from diptych.data.sources import archive as archives
from diptych.data.sources.archive import open_tar, open_zip
from diptych.errors import DataError

PICTURES = {f"pets/{kind}/{number}.png": encoded("PNG", number) for kind in ("cat", "dog") for number in range(8)}


def write_zip(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.fixture(params=["stored.zip", "deflated.zip", "plain.tar", "packed.tar.gz", "packed.tgz"])
def listing(request, tmp_path):
    path = tmp_path / request.param
    if path.suffix == ".zip":
        return open_zip(write_zip(path, PICTURES, zipfile.ZIP_DEFLATED if "def" in path.name else zipfile.ZIP_STORED))
    return open_tar(write_tar(path, {f"./{name}": content for name, content in PICTURES.items()}))


def test_everything_is_listed_and_read_as_it_is(listing):
    assert [entry.name for entry in listing.entries] == sorted(PICTURES)
    assert all(listing.load(name) == content for name, content in PICTURES.items())
    assert listing.left_out == []


def test_many_threads_read_at_once(listing):
    wanted = list(PICTURES) * 20
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(listing.load, wanted)) == [PICTURES[name] for name in wanted]


def test_nothing_is_written_beside_the_archive(listing, tmp_path):
    listing.load("pets/cat/1.png")
    assert len(list(tmp_path.iterdir())) == 1


EVIL = {"../evil.png": b"x", "a/../../evil.png": b"x", "/etc/evil.png": b"x"}


def test_zip_members_that_climb_out_link_or_hide(tmp_path):
    path = write_zip(
        tmp_path / "a.zip", EVIL | {"ok.png": encoded("PNG"), "__MACOSX/ok.png": b"x", "..\\evil.png": b"x"}
    )
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    listing = open_zip(path)
    assert [entry.name for entry in listing.entries] == ["ok.png"]
    assert listing.left_out == [
        "4 left out (absolute paths, or paths that climb out with ..)",
        "1 left out (links or devices)",
    ]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_tar_members_that_climb_out_link_or_are_devices(tmp_path, name):
    extra = [
        special("symbolic.png", tarfile.SYMTYPE, "/etc/passwd"),
        special("hard.png", tarfile.LNKTYPE, "ok.png"),
        special("device.png", tarfile.CHRTYPE),
        special("pipe.png", tarfile.FIFOTYPE),
        special("folder.png", tarfile.DIRTYPE),
    ]
    listing = open_tar(write_tar(tmp_path / name, EVIL | {"ok.png": encoded("PNG"), ".hidden.png": b"x"}, extra))
    assert [entry.name for entry in listing.entries] == ["ok.png"]
    assert listing.left_out == [
        "3 left out (absolute paths, or paths that climb out with ..)",
        "4 left out (links or devices)",
    ]


def test_an_encrypted_member_is_left_out(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.png": encoded("PNG"), "b.png": encoded("PNG")})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the first entry of the central directory
    path.write_bytes(content)
    listing = open_zip(path)
    assert [entry.name for entry in listing.entries] == ["b.png"] and listing.left_out == ["1 left out (encrypted)"]


def test_a_damaged_member_is_a_bad_picture_and_the_others_are_fine(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.png": encoded("PNG", 1), "b.png": encoded("PNG", 2)})
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 0xFF
    path.write_bytes(content)
    listing = open_zip(path)
    with pytest.raises(BadPicture, match="a.png: damaged in the zip file"):
        listing.load("a.png")
    assert listing.load("b.png") == encoded("PNG", 2)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_damaged_archive(tmp_path, name, share):
    write, read = (write_zip, open_zip) if name.endswith("zip") else (write_tar, open_tar)
    path = write(tmp_path / name, PICTURES)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DataError, match=r"cannot read .*a\.(zip|tar\.gz) \(.*check or fetch it again"):
        read(path)


def test_a_plain_tar_cut_short_loses_only_what_is_missing(tmp_path):
    content = encoded("PNG", 1) + bytes(5000)
    path = write_tar(tmp_path / "a.tar", {"a.png": content, "b.png": content})
    path.write_bytes(path.read_bytes()[:9000])
    try:
        listing = open_tar(path)
    except DataError:
        return  # newer versions of Python notice when listing
    assert listing.load("a.png") == content
    with pytest.raises(BadPicture, match="b.png: cut short"):
        listing.load("b.png")


@pytest.mark.parametrize("read", [open_zip, open_tar])
def test_a_file_that_is_no_archive(tmp_path, read):
    path = tmp_path / "a"
    path.write_text("this is text " * 100)
    with pytest.raises(DataError, match="not a (zip|tar) file"):
        read(path)


@pytest.mark.parametrize("read", [open_zip, open_tar])
def test_an_unreadable_archive(tmp_path, read, request):
    path = tmp_path / "a"
    path.write_bytes(b"x")
    path.chmod(0)
    for above in list(path.parents)[:3]:
        above.chmod(0o755)
    request.getfixturevalue("nobody")
    with pytest.raises(DataError, match="Permission denied"):
        read(path)


def test_archives_without_pictures(tmp_path):
    with pytest.raises(DataError, match="a.zip holds no pictures; give"):
        open_zip(write_zip(tmp_path / "a.zip", {"readme.txt": b"x"}))
    with pytest.raises(DataError, match="a.tar holds no pictures, 3 left out"):
        open_tar(write_tar(tmp_path / "a.tar", EVIL))


def test_the_last_of_two_members_with_one_name_stands(tmp_path):
    path = tmp_path / "a.tar"
    write_tar(path, {"a.png": encoded("PNG", 1)})
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo("a.png")
        member.size = len(encoded("PNG", 2))
        archive.addfile(member, io.BytesIO(encoded("PNG", 2)))
    listing = open_tar(path)
    assert len(listing.entries) == 1 and listing.load("a.png") == encoded("PNG", 2)


def test_a_zip_member_that_expands_absurdly_is_refused_before_it_does(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "ABSURD_MEMBER", (100_000, 100))
    path = write_zip(
        tmp_path / "a.zip",
        {"bomb.png": bytes(1_000_000), "ok.png": encoded("PNG"), "small.png": bytes(90_000)},
        zipfile.ZIP_DEFLATED,
    )
    listing = open_zip(path)
    with pytest.raises(BadPicture, match=r"bomb.png: a bomb: \d+ bytes that expand to 1000000"):
        listing.load("bomb.png")
    assert listing.load("ok.png") == encoded("PNG") and listing.load("small.png") == bytes(90_000)


def lie(path, claimed, place):
    """Rewrite the sizes that the central directory of a zip file with one member gives it."""
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.index(b"PK\x01\x02") + place, claimed)
    path.write_bytes(content)
    return path


def test_a_member_never_expands_beyond_the_size_it_claims(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.png": bytes(1_000_000)}, zipfile.ZIP_DEFLATED)
    listing = open_zip(lie(path, 1000, 24))
    with pytest.raises(BadPicture, match="a.png: damaged in the zip file .Bad CRC-32"):
        listing.load("a.png")


def test_a_bomb_that_lies_about_its_compressed_size_is_one_still(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "ABSURD_MEMBER", (100_000, 100))
    path = write_zip(tmp_path / "a.zip", {"a.png": bytes(1_000_000)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(BadPicture, match="a bomb"):
        open_zip(lie(path, 900_000, 20)).load("a.png")


def test_bombs_stay_within_the_memory(tmp_path):
    plain = write_zip(tmp_path / "plain.zip", {"a.png": bytes(120_000_000)}, zipfile.ZIP_DEFLATED)
    (tmp_path / "liar.zip").write_bytes(plain.read_bytes())
    liar = lie(tmp_path / "liar.zip", 1000, 24)
    code = """if True:
        import resource, sys
        from pathlib import Path
        from diptych.data.sources.archive import open_zip
        from diptych.data.decoding.pixels import BadPicture
        listings = [open_zip(Path(path)) for path in sys.argv[1:]]
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 80_000_000,) * 2)  # less than the bomb expands to
        for listing in listings:
            try:
                listing.load("a.png")
            except BadPicture as error:
                print(error.reason.split(" (")[0].split(":")[0])
        """
    said = subprocess.run([sys.executable, "-c", code, plain, liar], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["a bomb", "damaged in the zip file"]


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_whose_expansion_cannot_be_bounded_are_left_out(tmp_path, compression):
    path = write_zip(tmp_path / "a.zip", {"a.png": encoded("PNG")}, compression)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("b.png", encoded("PNG"))
    listing = open_zip(path)
    assert [entry.name for entry in listing.entries] == ["b.png"]
    assert listing.left_out == ["1 left out (compressed otherwise than by deflate)"]


def test_a_compressed_tar_that_expands_absurdly_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "ABSURD_TAR", (10_000_000, 200))
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(bytes(40_000_000)))
    with pytest.raises(DataError, match=r"a.tar.gz is a bomb: it expands to more than 200 times its size"):
        open_tar(path)
    monkeypatch.setattr(archives, "ABSURD_TAR", (100_000_000, 200))
    with pytest.raises(DataError, match="holds no pictures"):
        open_tar(path)


def test_a_table_of_contents_or_a_header_of_absurd_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_LISTING", 100_000)
    path = write_zip(tmp_path / "a.zip", {f"{number:0100}.png": b"" for number in range(1000)})
    with pytest.raises(DataError, match="cannot list .*a.zip: what it says of its members is larger than"):
        open_zip(path)
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x" * 200_000}) as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    with pytest.raises(DataError, match="cannot list .*a.tar: what it says of its members is larger than"):
        open_tar(path)


@pytest.mark.parametrize("member", [1, 4])
def test_a_flipped_byte_in_a_tar_header_loses_nothing_silently(tmp_path, member):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for number in range(6):
            info = tarfile.TarInfo(f"{number}.png")
            info.size = 700
            archive.addfile(info, io.BytesIO(bytes(700)))
    assert len(open_tar(path).entries) == 6
    content = bytearray(path.read_bytes())
    content[member * 1536 + 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"cannot read .*x.tar .*the header at byte {member * 1536} is no tar header"):
        open_tar(path)
