"""A model goes to a hub and comes back with everything it needs."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import hrseg
from hrseg.build.trained_model import TrainedModel
from hrseg.config import parse
from hrseg.errors import DataError, HrsegError
from hrseg.export import hub
from hrseg.task import LabelSpace, Normalisation, SegmentationClass, Task
from tests.conftest import ROOT

SPACE = LabelSpace(
    (SegmentationClass("<b>road</b>", (1, 2, 3)), SegmentationClass("a|b", (40, 50, 60))), Task.MULTILABEL
)
METRICS = {"miou": 0.7144, "miou_interval": [0.70, 0.72], "pixel_accuracy": 0.9, "split": "val", "images": 60,
           "definition": "cityscapes", "classes": [{"name": "a|b", "iou": 0.5}]}  # fmt: skip


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = hrseg.HRNetV2("hrnetv2_w18_small_v1", classes=2, in_channels=4).eval()
    config = parse({"model": {"encoder": "hrnetv2_w18_small_v1"}, "data": {"task": "multilabel"}})
    return TrainedModel(network, SPACE, Normalisation((0.4,) * 4, (0.2,) * 4, ((0.0, 65535.0),) * 4), config, 12)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    place = tmp_path_factory.mktemp("hub")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 4), dtype=np.uint8)
    Image.fromarray(pixels, "CMYK").convert("RGB").save(place / "three.png")
    return hub.save_pretrained(model, place / "mine", metrics=METRICS, licence="cc-by-4.0")


def test_a_folder_gives_back_the_model_and_its_meaning(model, folder):
    again = hub.from_pretrained(folder)
    assert (again.space, again.normalisation, again.config, again.step) == (
        model.space, model.normalisation, model.config, 12)  # fmt: skip
    x = torch.randn(1, 4, 64, 64)
    with torch.inference_mode():
        assert torch.equal(again.model(x), model.model(x))
    with safe_open(folder / "model.safetensors", "pt") as file:  # tensors and JSON: nothing in it can be executed
        assert json.loads(file.metadata()["hrseg"])["metrics"]["miou"] == 0.7144


def test_the_card_tells_scores_classes_and_licence_and_obeys_no_name(folder):
    card = (folder / "README.md").read_text()
    assert "license: cc-by-4.0" in card and "| 71.44 (70.00 to 72.00) | 90.00 |" in card
    assert "| 1 | a&#124;b | #28323c | 50.00 |" in card and "<b>" not in card


def test_a_picture_of_other_channels_is_refused_before_anything_is_written(model, folder, tmp_path):
    with pytest.raises(DataError, match="has 3 channels, the model takes 4"):
        hub.save_pretrained(model, tmp_path / "new", picture=folder.parent / "three.png")
    assert not (tmp_path / "new").exists()


def test_a_hub_that_is_not_reached_is_told_in_a_sentence(model, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HrsegError, match=r"me/mine: the hub did not accept it: .*hf auth login"):
        hub.push_to_hub(model, "me/mine")


class Hub(BaseHTTPRequestHandler):
    """What the hub's client asks for when it makes, fills and reads a repository."""

    files: dict[str, bytes] = {}
    commit = "a" * 40

    def answer(self, plain, status=200):
        content = json.dumps(plain).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        address = f"http://{self.headers['Host']}"
        if self.path == "/api/repos/create":
            self.answer({"url": f"{address}/me/mine", "name": "me/mine"})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            self.answer({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        elif "/commit/" in self.path:
            for entry in map(json.loads, body.splitlines()):
                if entry["key"] == "file":
                    self.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            self.answer({"commitUrl": f"{address}/me/mine/commit/{self.commit}", "commitOid": self.commit,
                         "pullRequestUrl": None, "success": True})  # fmt: skip
        else:
            self.answer({}, 200 if self.path == "/api/validate-yaml" else 404)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        name = self.path.rpartition("/")[2]
        if "/resolve/" not in self.path or name not in self.files:
            return self.answer({"error": "Entry not found"}, 404)
        content = self.files[name]
        self.send_response(200)
        self.send_header("X-Repo-Commit", self.commit)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def served():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


THERE_AND_BACK = """
import sys, torch, segmentation_models_pytorch as smp
from hrseg.errors import DataError, HrsegError
from hrseg.export import hub
loaded = hub.from_pretrained(sys.argv[1])
print(hub.push_to_hub(loaded, "me/mine", licence="mit"))
again, bare = hub.from_pretrained("me/mine"), smp.from_pretrained("me/mine").eval()
assert again.space == loaded.space and again.normalisation == loaded.normalisation
x = torch.randn(1, 4, 64, 64)
assert torch.equal(again.model(x), loaded.model(x)) and torch.equal(bare(x), loaded.model(x))
"""


def test_there_and_back_through_a_hub(folder, served, tmp_path):
    names = ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_ENDPOINT", "HF_HOME")
    environment = {k: v for k, v in os.environ.items() if k not in names and "proxy" not in k.lower()}
    environment |= {"HF_ENDPOINT": served, "HF_HOME": str(tmp_path), "HF_TOKEN": "made-up", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", THERE_AND_BACK, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == f"{served}/me/mine"
    assert {"README.md", "config.json", "model.safetensors"} <= Hub.files.keys()
