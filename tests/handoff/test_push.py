import base64
import http.server
import json
import os
import subprocess
import sys
import threading

import pytest
import timm
import yaml
from handing import RGB, make_run, stored
from tiny import flat, tree

from diptych.errors import ConfigError, DataError
from diptych.frozen import Preprocessing, load
from diptych.handoff.card import HandoffCard
from diptych.handoff.model_card import model_card
from diptych.handoff.push import push
from diptych.handoff.weights import read_backbone
from diptych.runs import write_json

VIT = Preprocessing(image_size=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
SCRIPT = """
import json, os, sys
from diptych.errors import UserError
from diptych.handoff.push import push
for repo in ("me/mine", "me/forbidden", "me/broken", "me/without"):
    if repo == "me/without":
        del os.environ["HF_TOKEN"]
    try:
        done = push(sys.argv[1], repo, told=lambda result: "told", licence="mit")
        print(json.dumps(["sent", done.address, done.folder, done.files]))
    except UserError as error:
        print(json.dumps(["refused", str(error)]))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    pictures = flat(tmp_path_factory.mktemp("pictures"), 12)
    return make_run(tmp_path_factory.mktemp("runs") / "own", pictures)


def told(result):
    return f"{result['verdict']} on {result['data']['name']}/test, in {result['run']}"


def evaluated(run):
    result = {"schema_version": 1, "name": "<b>labels", "verdict": "66.1 % (64.0-68.2)\n```", "run": str(run)}
    write_json(run / "evaluation" / "labels.json", result | {"data": {"name": "/home/me/labels"}})


def front(folder):
    _, text, body = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(text), body


def test_a_dry_run_writes_what_would_be_sent(run, tmp_path):
    evaluated(run)
    done = push(run, "me/mine", told=told, dry_run=tmp_path / "dry", licence="CC-BY-4.0")
    assert done.address is None and done.difference <= 1e-4
    assert sorted(file.name for file in done.folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert done.files == tuple((file.name, file.stat().st_size) for file in sorted(done.folder.iterdir()))
    matter, body = front(done.folder)
    assert matter["license"] == "cc-by-4.0" and matter["library_name"] == "diptych" and "simsiam" in matter["tags"]
    assert "````text\n66.1 % (64.0-68.2)\n``` on labels/test, in own\n````" in body
    assert "### \\<b\\>labels" in body and "/home" not in body and str(run.parent) not in body
    assert "ab" * 32 in body and "read_backbone(hf_hub_download(" in body and "create_model" not in body
    assert "mean of values 0..1: 0.5, 0.4, 0.3" in body
    found = read_backbone(done.folder / "model.safetensors", "cpu").embed(stored())
    assert found.equal(load(run, "cpu").embed(stored()))
    before = tree(tmp_path)
    with pytest.raises(DataError, match="is there already: choose another --dry-run"):
        push(run, "me/mine", told=told, dry_run=done.folder)
    assert tree(tmp_path) == before


def test_what_timm_knows_is_pushed_in_timms_form(tmp_path):
    run = make_run(tmp_path / "run", flat(tmp_path / "pictures", 12), "timm:test_vit", VIT)
    done = push(run, "me/vit", told=told, dry_run=tmp_path / "dry")
    matter, body = front(done.folder)
    assert matter["library_name"] == "timm" and "license" not in matter
    assert 'timm.create_model("hf-hub:me/vit", pretrained=True)' in body and "never evaluated" in body
    network = timm.create_model(f"local-dir:{done.folder}", pretrained=True)
    assert network.num_features == load(run, "cpu").num_features


@pytest.mark.parametrize("repo", ["mine", "me/mine/more", "me/..", "../mine", "me/a b", "https://x/y"])
def test_names_that_are_none_of_a_repository_are_refused(run, repo):
    with pytest.raises(ConfigError, match="type USER/NAME"):
        push(run, repo, told=told)


def test_other_licences_and_odd_words_cannot_break_the_front_matter(run):
    card = card_with(licence='Mine: "all rights"\n---\nx: 1', recipe="[a](javascript:x) <script>")
    text = model_card("me/mine", card, [], by_timm=False)
    matter = yaml.safe_load(text.split("---\n")[1])
    assert matter["license"] == "other" and matter["license_name"] == "mine-all-rights-x-1"
    assert 'licence: Mine: "all rights" --- x: 1' in text  # whole, below
    assert "x" not in matter and "<script>" not in text.replace("\\<script\\>", "")
    assert "[a](" not in text


def card_with(**values):
    return HandoffCard(
        **{
            **dict(schema_version=1, form="safetensors", takes="", backbone="resnet20v2", num_features=256),
            **dict(preprocessing=RGB, weights="", licence="", began="", method="simsiam", recipe=None, command=""),
            **dict(steps=None, epochs=None, data="d", data_pictures=None, data_fingerprint="", versions=()),
            **dict(diptych="0.1.0"),
            **values,
        }
    )


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as an upload asks for; it keeps what it was sent."""

    def do_POST(self):  # noqa: N802
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.met.append((self.path, self.headers["Authorization"], body))
        here = f"http://127.0.0.1:{self.server.server_port}"
        if b'"broken"' in body or "broken" in self.path:
            self.close_connection = True
        elif b'"forbidden"' in body:
            self.answer(403, {"error": "no"})
        elif self.path == "/api/repos/create":
            self.answer(200, {"url": f"{here}/me/mine", "id": "me/mine"})
        elif self.path.endswith("/preupload/main"):
            files = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(body)["files"]]
            self.answer(200, {"files": [file | {"shouldIgnore": False, "oid": None} for file in files]})
        elif self.path.endswith("/commit/main"):
            self.answer(200, {"commitUrl": f"{here}/me/mine/commit/{'a' * 40}", "commitOid": "a" * 40})
        else:
            self.answer(200, {"errors": [], "warnings": []})

    def answer(self, code, value):
        content = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.met = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_three_files_go_to_the_hub_and_its_refusals_are_told(run, hub, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_TOKEN": "hf_secret",
        "HF_HOME": str(tmp_path),
        "NO_PROXY": "127.0.0.1",
    }
    command = [sys.executable, "-c", SCRIPT, str(run)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
    sent, forbidden, broken, without = map(json.loads, ended.stdout.splitlines())
    assert sent[:3] == ["sent", f"http://127.0.0.1:{hub.server_port}/me/mine", None]
    assert [name for name, _ in sent[3]] == ["README.md", "config.json", "model.safetensors"]
    created = next(json.loads(body) for path, _, body in hub.met if path == "/api/repos/create")
    assert created["name"] == "mine" and created["organization"] == "me"
    assert created.get("private") is True or created["visibility"] == "private"  # by the version of huggingface_hub
    commits = [body for path, _, body in hub.met if path.endswith("/commit/main")]
    lines = [json.loads(line)["value"] for body in commits for line in body.splitlines()]
    files = {line["path"]: base64.b64decode(line["content"]) for line in lines if "path" in line}
    assert {name: len(content) for name, content in files.items()} == dict(sent[3])
    (tmp_path / "got.safetensors").write_bytes(files["model.safetensors"])
    found = read_backbone(tmp_path / "got.safetensors", "cpu").embed(stored())
    assert found.equal(load(run, "cpu").embed(stored()))
    assert all(token == "Bearer hf_secret" for _, token, _ in hub.met)
    assert forbidden[0] == "refused" and "refused to write me/forbidden (403)" in forbidden[1]
    assert broken[0] == "refused" and "cannot be reached" in broken[1] and "--dry-run FOLDER" in broken[1]
    assert without[0] == "refused" and "there is no token" in without[1] and "--dry-run FOLDER" in without[1]
    assert not any("\n" in said for _, said in (forbidden, broken, without))
    assert not any(path.endswith("/commit/main") and "mine" not in path for path, _, _ in hub.met)
