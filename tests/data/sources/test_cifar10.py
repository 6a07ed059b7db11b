import hashlib
import http.server
import io
import tarfile
import threading

import numpy as np
import pytest

from diptych.data.sources.cifar10 import ARCHIVE, FOLDER, URL, open_cifar10
from diptych.errors import DataError

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def members(per_file=3):
    """Files of the official layout with a few random records each."""
    rng = np.random.default_rng(0)
    files = {}
    for name in [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]:
        records = rng.integers(0, 256, (per_file, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        files[name] = records.tobytes()
    return files | {"batches.meta.txt": ("\n".join(NAMES) + "\n\n").encode(), "readme.html": b"<html>"}


def write(path, files):
    """Write the archive; returns its SHA-256."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "data" / ARCHIVE
    path.parent.mkdir()
    return path, write(path, members())


@pytest.fixture
def serve():
    """A real web server for one answer; returns its address and the number of requests so far."""
    servers = []

    def start(content, claimed=None, status=200):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                server.requests += 1
                self.send_response(status)
                self.send_header("Content-Length", str(claimed or len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args):
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        server.requests = 0
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        return server, f"http://127.0.0.1:{server.server_address[1]}/{ARCHIVE}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def test_records_become_pictures_and_labels(archive):
    path, sha256 = archive
    train, test = open_cifar10(str(path.parent), sha256=sha256)
    assert (len(train), len(test)) == (15, 3) and train.classes == test.classes == tuple(NAMES)
    record = np.frombuffer(members()["data_batch_2.bin"], np.uint8).reshape(-1, 3073)[1]
    picture = train.read(4)
    assert picture.shape == (3, 32, 32) and picture.dtype == np.uint8
    assert np.array_equal(picture[0, 0], record[1:33]) and np.array_equal(picture[2, 31], record[-32:])
    assert train.label(4) == record[0]


def test_archive_folder_and_unpacked_folder_are_the_same_data(archive, tmp_path):
    path, sha256 = archive
    unpacked = tmp_path / "unpacked" / FOLDER
    unpacked.mkdir(parents=True)
    for name, content in members().items():
        (unpacked / name).write_bytes(content)
    places = [(str(path.parent), sha256), (str(path), sha256), (str(unpacked.parent), "-"), (str(unpacked), "-")]
    found = [open_cifar10(place, sha256=checksum) for place, checksum in places]
    assert len({train.fingerprint for train, _ in found}) == 1 and len({test.fingerprint for _, test in found}) == 1


def test_a_wrong_checksum_is_refused_and_nothing_deleted(archive):
    path, _ = archive
    before = path.read_bytes()
    with pytest.raises(DataError, match=f"damaged or not the official archive.*{URL}"):
        open_cifar10(str(path.parent))
    assert path.read_bytes() == before


def test_download_once(archive, tmp_path, serve):
    path, sha256 = archive
    server, url = serve(path.read_bytes())
    told = []
    for _ in range(2):
        train, _ = open_cifar10(
            cache=tmp_path / "new" / "cache", url=url, sha256=sha256, on_download=lambda *done: told.append(done)
        )
    assert len(train) == 15 and server.requests == 1
    assert told[-1] == (path.stat().st_size, path.stat().st_size)
    assert [file.name for file in (tmp_path / "new" / "cache").iterdir()] == [ARCHIVE]


def test_data_dir_is_where_the_download_goes(archive, tmp_path, serve):
    path, sha256 = archive
    _, url = serve(path.read_bytes())
    open_cifar10(str(tmp_path / "mine"), url=url, sha256=sha256)
    assert (tmp_path / "mine" / ARCHIVE).is_file()


@pytest.mark.parametrize("fault", ["cut", "other content", "missing", "offline"])
def test_a_failed_download_leaves_nothing_behind(archive, tmp_path, serve, fault):
    path, sha256 = archive
    content = path.read_bytes()
    if fault == "cut":
        _, url = serve(content[:1000], claimed=len(content))
    elif fault == "other content":
        _, url = serve(b"log in first")
    elif fault == "missing":
        _, url = serve(b"", status=404)
    else:
        url = "http://127.0.0.1:9/nobody-listens"
    with pytest.raises(DataError, match=f"fetch {URL} by hand and give its folder with --data-dir") as caught:
        open_cifar10(cache=tmp_path / "cache", url=url, sha256=sha256)
    assert "\n" not in str(caught.value) and list((tmp_path / "cache").iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot download CIFAR-10 to"):
        open_cifar10(str(tmp_path / "file" / "below"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_batch_3.bin": b"x" * 100}, "data_batch_3.bin has 100 bytes"),
        ({"test_batch.bin": b""}, "test_batch.bin has 0 bytes"),
        ({"batches.meta.txt": b"airplane\n"}, "for 1 classes"),
    ],
)
def test_another_layout(tmp_path, change, message):
    sha256 = write(tmp_path / ARCHIVE, members() | change)
    with pytest.raises(DataError, match=message):
        open_cifar10(str(tmp_path), sha256=sha256)


def test_an_incomplete_unpacked_folder(tmp_path):
    (tmp_path / FOLDER).mkdir()
    with pytest.raises(DataError, match="data_batch_1.bin cannot be read"):
        open_cifar10(str(tmp_path))
