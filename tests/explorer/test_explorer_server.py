"""The server by real sockets: what it answers, to whom, and what becomes of it under too much at once."""

import concurrent.futures
import io
import json
import re
import socket
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scenes import BITING, ask, colour, embed, raw, scene, vectors

from diptych.errors import ConfigError, DataError
from diptych.explorer import desk, handler, pool
from diptych.explorer import scene as scenes
from diptych.explorer.explore import explore
from diptych.explorer.scene import compose
from diptych.explorer.schemes import Scheme, categories
from diptych.explorer.server import Server, names_of

WHOLE = scene()


@pytest.fixture
def server():
    with Server(WHOLE, 0) as running:
        yield running


def png(side=24):
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (9, 99, 199)).save(buffer, "PNG")
    return buffer.getvalue()


def token(server):
    return server.address.split("/")[3]


def test_the_page_and_its_data(server):
    status, headers, page = ask(server, "")
    assert status == 200 and headers["Content-Type"].startswith("text/html") and b"explorer.js" in page
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self'" in policy and "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"
    about = json.loads(ask(server, "scene")[2])
    assert about["count"] == 60 and about["pictures"] and about["places"]
    assert [(one["name"], one["quick"]) for one in about["schemes"]] == [
        ("label", True),
        ("cluster", False),
        ("outlier", False),
    ]
    positions = np.frombuffer(ask(server, "positions")[2], "<f4").reshape(-1, 2)
    np.testing.assert_array_equal(positions, WHOLE.layout.value().positions)
    assert json.loads(ask(server, "names")[2]) == WHOLE.vectors.names
    assert ask(server, "explorer.js", "HEAD")[2] == b""


def test_pictures_by_number(server):
    for row in (0, 59):
        status, headers, content = ask(server, f"picture/{row}")
        assert status == 200 and headers["Content-Type"] == "image/jpeg"
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as picture:
            assert np.abs(np.array(picture.getpixel((12, 12)), int) - colour(row)).max() <= 4


def test_neighbours_are_those_of_brute_force(server):
    values = WHOLE.vectors.values.astype(np.float64)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    similar = values[17] @ values.T
    similar[17] = -2
    found = json.loads(ask(server, "neighbours/17")[2])
    assert found["rows"] == np.argsort(-similar, kind="stable")[:12].tolist()
    np.testing.assert_allclose(found["similarities"], np.sort(similar)[::-1][:12], atol=1e-5)


def test_schemes_are_computed_when_asked_for(server):
    for name in ("label", "cluster", "outlier"):
        found = json.loads(ask(server, f"scheme/{name}")[2])
        assert found["about"]["kind"] == ("scale" if name == "outlier" else "categories")


@pytest.mark.parametrize(
    "path",
    [
        "picture/60",
        "picture/-1",
        "picture/01",
        "picture/1e1",
        "picture/ 1",
        "picture/٣",
        "picture/99999999999999999999",
        "picture/",
        "picture/0/",
        f"picture/{BITING.split()[0]}",
        "neighbours/60",
        "scheme/nothing",
        "..%2f..%2fetc%2fpasswd",
        "../../etc/passwd",
        "%2e%2e/built.json",
        "built.json",
        "static/explorer.js",
        "explorer.js%00",
        "//explorer.js",
    ],
)
def test_what_is_not_there_is_not_there(server, path):
    answer = raw(server, f"GET /{token(server)}/{path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
    assert answer.split(b"\r\n")[0].split(b" ")[1] in (b"404", b"400")
    assert b"root:" not in answer


@pytest.mark.parametrize("path", ["", "scene", "picture/0", "x" * 32 + "/scene", "..%2fscene", "é/scene"])
def test_without_the_token_nothing_is_told(server, path):
    request = f"GET /{path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()
    answer = raw(server, request)
    assert answer.split(b" ")[1] == b"403"
    assert b"open the whole address that the terminal shows" in answer and token(server).encode() not in answer


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:80", ""])
def test_a_forged_host_is_refused(server, host):
    answer = raw(server, f"GET /{token(server)}/scene HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert answer.split(b" ")[1] == b"403" and b"schemes" not in answer
    assert ask(server, "scene", Host=f"localhost:{server.port}")[0] == 200


def test_the_usual_port_is_left_out_by_browsers():
    assert names_of(80) == ["127.0.0.1", "localhost"] and names_of(8080) == ["127.0.0.1:8080", "localhost:8080"]


def test_searches_take_turns_and_a_turn_comes_back_whatever_happened(monkeypatch):
    monkeypatch.setattr(desk, "TURN", 0.3)
    begun, go = threading.Semaphore(0), threading.Event()

    def compute(content):
        if content == b"wait":
            begun.release()
            go.wait(30)
        raise ValueError("a fault")

    with Server(scene(embed=compute), 0) as server:
        send = {"method": "POST", "X_Diptych_Token": token(server)}
        for _ in range(desk.HEAVY + 1):
            assert ask(server, "place", body=b"fail", **send)[0] == 500
        with concurrent.futures.ThreadPoolExecutor(desk.HEAVY) as clients:
            held = [clients.submit(ask, server, "place", body=b"wait", **send) for _ in range(desk.HEAVY)]
            for _ in held:
                assert begun.acquire(timeout=20)
            status, headers, content = ask(server, "neighbours/0")
            assert (
                status == 503 and headers["Retry-After"] and "busy with other searches" in json.loads(content)["error"]
            )
            assert ask(server, "picture/0")[0] == ask(server, "scheme/cluster")[0] == 200
            go.set()
        assert ask(server, "neighbours/0")[0] == 200


def test_another_page_may_not_ask(server):
    assert ask(server, "scene", Origin="http://evil.example")[0] == 403
    assert ask(server, "scene", Origin="null")[0] == 403
    post = {"method": "POST", "body": png(), "X_Diptych_Token": token(server)}
    assert ask(server, "place", **post, Origin=f"http://127.0.0.1:{server.port + 1}")[0] == 403
    assert ask(server, "place", **post, Origin=f"http://127.0.0.1:{server.port}")[0] == 200
    assert ask(server, "place", **{**post, "X_Diptych_Token": "guess"})[0] == 403
    assert ask(server, "scene", **post)[0] == 404
    assert ask(server, "scene", "DELETE")[0] == 405


def test_a_picture_from_outside_finds_its_place(server):
    status, _, content = ask(server, "place", "POST", png(25), X_Diptych_Token=token(server))
    found = json.loads(content)
    vector = embed(png(25))
    values = WHOLE.vectors.values.astype(np.float64)
    similar = values @ vector / np.linalg.norm(values, axis=1) / np.linalg.norm(vector)
    assert status == 200 and found["rows"] == np.argsort(-similar, kind="stable")[:12].tolist()
    assert (found["x"], found["y"]) == pytest.approx(WHOLE.layout.value().place(vector, None, None))


@pytest.mark.parametrize("content", [b"", b"not a picture", png()[:60], b"<svg onload=alert(1)>"])
def test_what_is_no_picture_is_said_to_be_none(server, content):
    status, _, answer = ask(server, "place", "POST", content, X_Diptych_Token=token(server))
    assert status == 422
    assert re.match(r"this file has no place on the map: .+; try another one$", json.loads(answer)["error"])


def test_a_vector_that_is_not_finite_has_no_place():
    with Server(scene(embed=lambda content: np.full(8, np.nan, np.float32)), 0) as server:
        status, _, answer = ask(server, "place", "POST", png(), X_Diptych_Token=token(server))
        assert status == 422 and "its vector is not finite" in json.loads(answer)["error"]


def test_our_own_fault_is_said_on_both_sides(capsys):
    def fail(content):
        raise KeyError("a fault")

    with Server(scene(embed=fail), 0) as server:
        status, _, answer = ask(server, "place", "POST", png(), X_Diptych_Token=token(server))
        assert (status, json.loads(answer)["error"]) == (500, handler.FAILED)
        assert "KeyError: 'a fault'" in capsys.readouterr().err
        assert ask(server, "scene")[0] == 200


def test_what_takes_long_is_waited_for_by_asking_again(monkeypatch):
    monkeypatch.setattr(desk, "PATIENCE", 0.05)
    slow, go = scene(), threading.Event()
    asked = []

    def compute():
        asked.append(go.wait(20))
        return categories(["a"] * 60)

    slow.schemes["slow"] = Scheme("slow", "slow thing", compute)
    with Server(slow, 0) as server:
        for _ in range(3 * pool.WORKERS):  # as pages that are loaded again and again ask
            status, _, content = ask(server, "scheme/slow")
            told = json.loads(content)
            assert (status, told["computing"]) == (202, "the colours by slow thing") and told["seconds"] >= 0
        assert ask(server, "neighbours/3")[0] == 200  # nobody else waits for it
        go.set()
        while (found := ask(server, "scheme/slow"))[0] == 202:
            pass
        assert found[0] == 200 and json.loads(found[2])["about"]["categories"] == [{"name": "a", "count": 60}]
    assert asked == [True]


def test_a_map_that_takes_long_opens_at_once(monkeypatch):
    monkeypatch.setattr(desk, "PATIENCE", 0.05)
    go, lay_out = threading.Event(), scenes.lay_out

    def slow(values, kind):
        assert kind == "umap" and go.wait(20)
        return lay_out(values, "pca")

    monkeypatch.setattr(scenes, "lay_out", slow)
    monkeypatch.setattr(scenes, "check_layout", lambda kind, count: None)
    with explore(vectors(), None, layout="umap", port=0, open_browser=False) as server:
        for path in ("scene", "positions"):
            status, _, content = ask(server, path)
            assert (status, json.loads(content)["computing"]) == (202, "the map by UMAP")
        assert ask(server, "")[0] == ask(server, "names")[0] == 200
        go.set()
        while (found := ask(server, "scene"))[0] == 202:
            pass
        assert found[0] == 200 and len(ask(server, "positions")[2]) == 8 * 60


def test_a_server_that_computes_is_closed_soon(monkeypatch):
    monkeypatch.setattr(pool, "LEAVING", 0.3)
    begun, go = threading.Event(), threading.Event()

    def compute(content):
        begun.set()
        go.wait(60)
        raise DataError("too late")

    asked = threading.Thread(target=lambda: ask(server, "place", "POST", png(), X_Diptych_Token=token(server)))
    try:
        with Server(scene(embed=compute), 0) as server:
            asked.start()
            assert begun.wait(20)
            start = time.monotonic()
        assert time.monotonic() - start < 15
    finally:
        go.set()
        asked.join()


def test_uploads_have_a_limit_and_a_length(server):
    head = (
        f"POST /{token(server)}/place HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nX-Diptych-Token: {token(server)}\r\n"
    )
    answer = raw(server, f"{head}Content-Length: {handler.MOST_BYTES + 1}\r\n\r\n".encode() + b"x" * 100_000)
    assert answer.split(b" ")[1] == b"413" and b"larger than 64 MiB" in answer
    for length in ("", "Content-Length: -1\r\n", "Content-Length: many\r\n", "Transfer-Encoding: chunked\r\n"):
        assert raw(server, f"{head}{length}\r\n".encode()).split(b" ")[1] == b"411"
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(f"{head}Content-Length: 1000\r\n\r\nshort".encode())
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100).split(b" ")[1] == b"400"


def test_what_is_no_request_is_answered_or_dropped(server):
    assert b'"error"' in raw(server, b"nonsense\r\n\r\n")
    assert raw(server, b"GET /\r\n\r\n").startswith(b'{"error"')
    assert b"431" in raw(server, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n")
    assert b"414" in raw(server, b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n")
    assert ask(server, "scene")[0] == 200


def test_without_pictures_and_without_a_backbone():
    with Server(compose(vectors(5), None), 0) as server:
        about = json.loads(ask(server, "scene")[2])
        assert (about["pictures"], about["places"]) == (False, False)
        assert ask(server, "picture/0")[0] == 404
        assert ask(server, "place", "POST", png(), X_Diptych_Token=token(server))[0] == 404


def test_a_slow_client_is_let_go_and_the_others_are_served(monkeypatch):
    monkeypatch.setattr(handler, "READING", 0.5)
    with Server(WHOLE, 0) as server:
        slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(pool.WORKERS)]
        stop = threading.Event()

        def drip():
            while not stop.wait(0.1):
                for connection in slow:
                    try:
                        connection.sendall(b"G")
                    except OSError:
                        return

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert ask(server, "scene")[0] == 200  # within the 20 s that `ask` waits
        finally:
            stop.set()
            dripping.join()
            for connection in slow:
                connection.close()


def test_a_client_may_take_its_time_over_an_answer_but_not_for_ever(monkeypatch):
    monkeypatch.setattr(handler, "READING", 0.5)
    long = scenes.compose(replace(vectors(), names=["x" * 400_000] * 60), None)  # more than the system keeps in between
    answer = long.names().encode()

    def slowly(server):
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(20)
            connection.connect(("127.0.0.1", server.port))
            head = f"GET /{token(server)}/names HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n"
            connection.sendall(head.encode())
            time.sleep(1.5)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    with Server(long, 0) as server:
        assert slowly(server).endswith(answer)
        monkeypatch.setattr(handler, "SENDING", 0.5)
        assert len(slowly(server)) < len(answer)


def test_content_that_is_refused_is_not_listened_to_for_long(server, monkeypatch):
    monkeypatch.setattr(handler, "LINGERING", 0.2)
    head = f"POST /{token(server)}/place HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: 9\r\n\r\n"
    start = time.monotonic()
    assert raw(server, head.encode()).split(b" ")[1] == b"403"  # and closed, although nothing of the 9 bytes has come
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert b"X-Diptych-Token" in answer
        with pytest.raises(OSError):
            while time.monotonic() < start + handler.READING / 2:
                connection.sendall(b"x")
                time.sleep(0.05)


def test_more_at_once_than_can_be_served_is_told_so(monkeypatch):
    monkeypatch.setattr(pool, "WAITING", 4)
    monkeypatch.setattr(pool, "REFUSED", 8)
    monkeypatch.setattr(handler, "READING", 60.0)
    before = threading.active_count()
    with Server(WHOLE, 0) as server:
        running = threading.active_count() - before
        request = f"GET /{token(server)}/scene HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()
        idle: list[socket.socket] = []
        while not server._pool._waiting.full():  # then all workers have one too, and the next is one too many
            assert len(idle) < 500
            idle.append(socket.create_connection(("127.0.0.1", server.port)))
            time.sleep(0.05)
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as silent:
            assert silent.recv(100).startswith(b"HTTP/1.0 503")
        answer = raw(server, request)
        assert answer.startswith(b"HTTP/1.0 503") and b"try again in a second" in answer
        for connection in idle:
            connection.close()

        def one(_):
            try:
                return raw(server, request).split(b" ")[1]
            except ConnectionResetError:
                return b"reset"

        with concurrent.futures.ThreadPoolExecutor(40) as clients:
            answers = [*clients.map(one, range(400))]
        assert set(answers) <= {b"200", b"503"} and b"200" in answers
        assert threading.active_count() - before == running
        assert ask(server, "scene")[0] == 200
    assert threading.active_count() == before


def test_a_port_in_use_makes_way_for_the_next():
    with Server(WHOLE, 0) as first, Server(WHOLE, first.port) as second:
        assert second.port > first.port
        assert second.note == f"port {first.port} is in use, so this is {second.port}"
        assert token(first) != token(second) and len(token(first)) >= 32
        assert ask(second, "scene")[0] == 200
    with pytest.raises(ConfigError, match=r"--port must be 0\.\.65535, not 70000"):
        Server(WHOLE, 70000)


def test_without_a_browser_the_address_is_left_to_the_person(monkeypatch, capsys):
    from diptych.progress import Terminal

    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with explore(vectors(4), None, port=0, terminal=Terminal()) as server:
        assert ask(server, "scene")[0] == 200
    assert "no browser was found here: open the address yourself" in capsys.readouterr().err
