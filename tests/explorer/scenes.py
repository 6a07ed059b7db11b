"""A small map for every test of the explorer: pictures of one colour, vectors in groups, some names that bite."""

import http.client
import socket

import numpy as np

from diptych.data.decoding.decode import decode
from diptych.data.sources.source import Arrays
from diptych.explorer.scene import compose
from diptych.vectors.table import Vectors

CLASSES = ("ant", "bee", "cat")
BITING = "<img src=x onerror=document.title='bitten'>.jpg"
TURNED = "exe\u202egnp.png"


def vectors(count=60, width=8, seed=0, labels=True):
    """Vectors in three groups, perhaps with the group's name as the label; two names that should do no harm."""
    random = np.random.default_rng(seed)
    which = np.arange(count) % 3
    values = (4 * np.eye(width)[which] + random.standard_normal((count, width))).astype(np.float32)
    names = [f"{CLASSES[group]}/{row:03}.png" for row, group in enumerate(which)]
    names[:2] = [BITING, TURNED][: len(names)]
    words = [CLASSES[group] for group in which] if labels else None
    return Vectors(values=values, names=names, labels=words, groups=None, card=None, path=None)


def colour(row):
    """The colour of a picture: every row has its own."""
    return (40 + 37 * row) % 256, (200 + 91 * row) % 256, (90 + 53 * row) % 256


def pictures(count=60, side=24):
    """Picture i of one colour."""
    images = np.zeros((count, 3, side, side), np.uint8)
    images[:] = np.array([colour(row) for row in range(count)], np.uint8)[:, :, None, None]
    return Arrays("pictures", images, [row % 3 for row in range(count)], CLASSES)


def embed(content):
    """Stands for a backbone: a direction that only the picture's size and channels decide."""
    pixels = decode(content, "the picture")
    vector = np.zeros(8, np.float32)
    vector[pixels.shape[0] % 8], vector[pixels.shape[1] % 8] = 1, 2
    return vector


def scene(count=60, **options):
    return compose(vectors(count), pictures(count), **{"embed": embed, **options})


def ask(server, path, method="GET", body=None, token=True, **headers):
    """Ask a running server: status, headers, content. ``path`` lies below the token unless there is none."""
    whole = server.address.split("/", 3)[3] + path if token else path
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request(method, f"/{whole}", body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), content


def raw(server, request, seconds=20):
    """Send bytes as they are and return all that comes back."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))
