"""tools/serve.py: the page, in a browser."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from hrseg.predict.prediction import Prediction
from hrseg.predict.predictor import Predictor
from hrseg.predict.web_page import Answer, start_web_page, with_classes
from hrseg.task import LabelSpace, Task
from tests.shapes import save_checkpoint

CHROMIUM = next((p for p in ("/usr/bin/chromium", "/usr/bin/chromium-browser") if Path(p).exists()), None)


@pytest.fixture(scope="module")
def predictor(saved):
    return Predictor(saved, "cpu", max_pixels=100_000)


@pytest.fixture(scope="module")
def address(predictor, tmp_path_factory):
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'hrseg[serve]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        blocks, url = start_web_page(predictor, "tiny <b>net</b>", max_mib=1)
        yield url
        blocks.close(verbose=False)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium at /usr/bin/chromium (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


def test_the_page_is_for_this_machine_and_asks_nobody_else(address):
    assert urlsplit(address).hostname == "127.0.0.1"
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


def test_a_dropped_picture_shows_overlay_legend_and_shares_and_too_large_ones_are_refused(
    browser, address, predictor, tmp_path
):
    image = np.asarray(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize((300, 200))
    )
    Image.fromarray(image).save(tmp_path / "street.png")
    Image.fromarray(np.zeros((400, 400, 3), np.uint8)).save(tmp_path / "pixels.png")
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (800, 800, 3), dtype=np.uint8)).save(
        tmp_path / "bytes.png"
    )
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.get_by_text("tiny <b>net</b>", exact=True).wait_for(timeout=60_000)  # a name is text, not HTML
    results = page.get_by_text("results: class indices")
    assert page.locator("#legend").inner_text().split()[-3:] == ["ground", "box", "disc"]
    assert not results.is_visible()  # an empty frame says nothing
    upload = page.locator("input[type=file]").first
    upload.set_input_files(str(tmp_path / "street.png"))
    name, share = next(iter(predictor(image).shares.items()))
    page.get_by_text(f"{name} {share:.1%}").wait_for(timeout=60_000)
    page.wait_for_function("document.querySelectorAll('img[src*=\"/file=\"]').length >= 2", timeout=60_000)
    page.screenshot(path=os.environ.get("HRSEG_SCREENSHOT", tmp_path / "page.png"))
    assert results.is_visible()
    page.get_by_label("Remove").or_(page.get_by_label("Clear")).first.click()
    results.wait_for(state="hidden", timeout=60_000)
    for large, told in (("pixels.png", "more than 100,000"), ("bytes.png", "size")):
        page.reload()
        page.locator("input[type=file]").first.set_input_files(str(tmp_path / large))
        page.locator("[data-testid=toast-body]", has_text=told).first.wait_for(timeout=60_000)
    answered = [url for url in asked if urlsplit(url).scheme in ("http", "https")]
    assert answered and {urlsplit(url).hostname for url in answered} == {"127.0.0.1"}
    assert not errors
    page.close()


@pytest.fixture(scope="module")
def binary_address(tmp_path_factory):
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'hrseg[serve]'")
    path = save_checkpoint(tmp_path_factory.mktemp("binary") / "net.pt", names=("ok", "defect"), task="binary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        blocks, url = start_web_page(Predictor(path, "cpu"), "defects", max_mib=1)
        yield url
        blocks.close(verbose=False)


def test_a_phone_shows_the_pictures_below_each_other_with_opacity_threshold_and_results(
    browser, binary_address, tmp_path
):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    page = browser.new_page(viewport={"width": 400, "height": 800})
    page.goto(binary_address)
    page.locator("input[type=file]").first.set_input_files(str(tmp_path / "a.png"))
    page.get_by_text("threshold: probability from which a pixel is defect").wait_for(timeout=60_000)
    page.wait_for_function("document.querySelectorAll('img[src*=\"/file=\"]').length >= 2", timeout=60_000)
    page.screenshot(path=os.environ.get("HRSEG_SCREENSHOT_PHONE", tmp_path / "phone.png"), full_page=True)
    above, below = (page.locator("img[src*='/file=']").nth(n).bounding_box() for n in range(2))
    assert below["y"] >= above["y"] + above["height"] and min(above["width"], below["width"]) > 250
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    for name in ("a_ids.png", "a_colors.png", "a_overlay.png"):
        assert page.get_by_text(name.removesuffix(".png")).first.is_visible(), name
    before = page.locator("#legend").inner_text()
    page.locator("input[type=range]").nth(1).fill("0.99")
    page.locator("input[type=range]").nth(1).dispatch_event("pointerup")
    page.wait_for_function("(text) => document.querySelector('#legend').innerText !== text", arg=before, timeout=60_000)
    page.close()


def test_hidden_classes_show_the_image_and_a_threshold_moves_the_foreground(predictor):
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    labels = np.arange(90, dtype=np.uint8)[None].repeat(60, 0) // 30
    prediction = Prediction(image, labels, predictor.space)
    drawn = np.asarray(with_classes(prediction, ["box"], 0.5))
    assert np.array_equal(drawn[prediction.labels != 1], image[prediction.labels != 1])
    assert not np.array_equal(drawn[prediction.labels == 1], image[prediction.labels == 1])
    space = LabelSpace(prediction.space.classes[:2], Task.BINARY)
    probabilities = np.array([[[0.2, 0.5, 0.9]]], np.float32)
    answer = Answer(Prediction(image[:1, :3], np.zeros((1, 3), np.uint8), space, probabilities), "a")
    assert answer.at(0.5).labels.tolist() == [[0, 1, 1]] and answer.at(0.95).shares == {space.names[0]: 1.0}
