"""The page in a real browser: what people touch works, and nothing complains."""

from __future__ import annotations

import numpy as np
import pytest

from hrseg.report import page
from hrseg.report.examples import Examples
from hrseg.task import LabelSpace, Task
from tests.report.made import SPACE, run

EVIL = "<script>document.title='run'</script>"
PIXELS = """(selector) => {
  const drawn = document.querySelector(selector), copy = new OffscreenCanvas(drawn.width, drawn.height);
  const context = copy.getContext("2d", { willReadFrequently: true });
  context.drawImage(drawn, 0, 0);
  return Array.from(context.getImageData(0, 0, copy.width, copy.height).data);
}"""


def pixels(tab, side: str) -> np.ndarray:
    """What the canvas of one side shows, uint8 [H * W, 4]."""
    return np.array(tab.evaluate(PIXELS, f"#{side}-layer canvas"), np.uint8).reshape(-1, 4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two runs, one of them with a name that would like to be run."""
    root = tmp_path_factory.mktemp("runs")
    names = [f"{EVIL}/{n}" for n in range(4)]
    return run(root / "new", names, wrong=0.1), run(root / "old", names, wrong=0.5)


@pytest.fixture
def opened(chromium):
    """Open a page; whatever the browser complains about, and each request, fails the test at its end."""
    complaints: list[str] = []
    contexts = []

    def open_page(path, width=1280, dark=False):
        context = chromium.new_context(
            viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light", offline=True
        )
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on(
            "request",
            lambda request: complaints.extend([request.url][: not request.url.startswith(("file:", "data:"))]),
        )
        tab.goto(path.as_uri())
        if tab.locator("#viewer").count():
            tab.locator("#picture-name:not(:empty)").wait_for()
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def test_the_slider_moves_by_mouse_and_by_keyboard(opened, folders):
    tab = opened(page.write_report(folders[0]))
    clip = "getComputedStyle(document.querySelector('#right-layer')).clipPath"
    assert tab.evaluate(clip) == "inset(0px 0px 0px 50%)"
    box = tab.locator("#stage").bounding_box()
    tab.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 20)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 20)
    tab.mouse.up()
    assert float(tab.locator("#wipe").input_value()) == pytest.approx(25, abs=1)
    assert tab.locator("#pixel").text_content().startswith("ground truth: ")
    tab.locator("#wipe").focus()
    tab.keyboard.press("ArrowRight")
    assert float(tab.locator("#wipe").input_value()) == pytest.approx(26, abs=1)
    tab.keyboard.press("End")
    assert tab.evaluate(clip) == "inset(0px 0px 0px 100%)"


def test_a_class_is_hidden_and_shown_again_by_keyboard(opened, folders):
    tab = opened(page.write_report(folders[0]))
    before = pixels(tab, "right")
    car = (before == [0, 0, 142, 255]).all(1)
    chip = tab.locator("#legend button", has_text="car")
    chip.focus()
    tab.keyboard.press("Enter")
    assert chip.get_attribute("aria-pressed") == "false"
    hidden = pixels(tab, "right")
    assert car.any() and (hidden[car][:, 3] == 0).all() and np.array_equal(hidden[~car], before[~car])
    tab.keyboard.press("Enter")
    assert np.array_equal(pixels(tab, "right"), before)


def test_the_error_map_is_the_difference_of_target_and_prediction(opened, folders):
    tab = opened(page.write_report(folders[0]))
    tab.locator("#right").get_by_label("errors").check()
    drawn = pixels(tab, "right")
    kept = Examples.load(folders[0] / "examples.npz")
    name = tab.locator("#picture-name").text_content()
    target, prediction = kept.photos[name].target.unpack().ravel(), kept.predictions[name].unpack().ravel()
    wrong = (target != prediction) & (target != 255)
    assert np.array_equal(np.abs(drawn[:, :3].astype(int) - [213, 94, 0]).max(1) <= 2, wrong)


def test_labels_that_overlap_are_drawn_in_their_mean_colour(opened, tmp_path):
    space = LabelSpace(SPACE.classes, Task.MULTILABEL)
    folder = run(tmp_path / "labels", ["a"], space=space)
    tab = opened(page.write_report(folder))
    tab.locator("#right").get_by_label("ground truth").check()
    target = Examples.load(folder / "examples.npz").photos["a"].target.unpack().reshape(3, -1)
    drawn = pixels(tab, "right")
    both = (target == [[1], [1], [0]]).all(0)
    assert both.any() and (np.abs(drawn[both].astype(int) - [64, 32, 135, 255]) <= 1).all()
    tab.locator("#legend button", has_text="road").click()
    assert (pixels(tab, "right")[both] == [0, 0, 142, 255]).all()
    tab.locator("#right").get_by_label("errors").check()
    assert tab.locator("#confusions").text_content().count("(not there)") == 6


def test_names_are_shown_and_not_run(opened, folders):
    tab = opened(page.write_report(folders[0]))
    assert tab.locator("#picture-name").text_content().startswith(EVIL)
    assert tab.title() == "new"


def test_the_next_picture_is_chosen_by_keyboard(opened, folders):
    tab = opened(page.write_report(folders[0]))
    first = tab.locator("#picture-name").text_content()
    tab.locator("#strip button").nth(1).focus()
    tab.keyboard.press("Enter")
    tab.wait_for_function("(name) => document.querySelector('#picture-name').textContent !== name", arg=first)
    assert tab.locator("#strip button").nth(1).get_attribute("aria-pressed") == "true"


def test_two_runs_are_compared_in_one_picture(opened, folders):
    tab = opened(page.write_report(*folders))
    left, right = pixels(tab, "left"), pixels(tab, "right")
    assert not np.array_equal(left, right)
    tab.locator("#left").get_by_label("change").check()
    assert "wrong only in new" in tab.locator("#key").text_content()


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_needs_no_sideways_scrolling_and_the_button_changes_the_light(opened, folders, dark):
    tab = opened(page.write_report(folders[0]), width=390, dark=dark)
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    ground = "getComputedStyle(document.body).backgroundColor"
    before = tab.evaluate(ground)
    tab.locator("#theme").click()
    assert tab.evaluate(ground) != before


def test_long_names_of_runs_hide_no_choice_on_a_phone(opened, tmp_path):
    one, other = (run(tmp_path / f"{name}_with_a_name_that_says_all_of_its_settings", ["a"]) for name in ("new", "old"))
    tab = opened(page.write_report(one, other), width=390)
    assert tab.evaluate("[...document.querySelectorAll('.choices')].every(e => e.scrollWidth <= e.clientWidth)")
    assert tab.evaluate("document.documentElement.scrollWidth") == 390


def test_the_class_table_is_sorted_by_a_click(opened, folders):
    tab = opened(page.write_report(folders[0]))
    tab.locator("#classes thead button", has_text="IoU").click()
    values = [float(text) for text in tab.locator("#classes td.wide .value").all_text_contents()]
    assert values == sorted(values, reverse=True)
