"""The page in a real browser: what people touch works, and nothing complains."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from hrseg.metrics import PerImage, image_ious
from hrseg.metrics.scores import ratio
from hrseg.report import page, pictures
from hrseg.report.examples import Examples
from hrseg.task import LabelSpace, SegmentationClass, Task
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
    assert np.array_equal(near(drawn, pictures.CONFUSED), wrong)


def near(drawn: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Where pixels [N, 4] have a colour, but for the rounding of transparency."""
    return np.abs(drawn[:, :3].astype(int) - color).max(1) <= 2


@pytest.fixture(scope="module")
def inspection(tmp_path_factory):
    """A run on tall photos with defects, of which the last two are clean; a class that a spreadsheet would compute."""
    classes = SegmentationClass("background", (0, 0, 0)), SegmentationClass("=defect", (230, 60, 60))
    space, names = LabelSpace(classes, Task.BINARY), [f"=part {n}" for n in range(30)]
    return run(tmp_path_factory.mktemp("runs") / "inspection", names, space=space, wrong=0.3, clean=2, size=(60, 45))


def test_misses_and_false_alarms_have_a_colour_each_and_clean_images_are_a_group(opened, inspection):
    tab = opened(page.write_report(inspection))
    tab.locator("#right").get_by_label("errors").check()
    assert "false alarm" in tab.locator("#key").text_content()
    assert "Clean, with false pixels" in tab.locator("#strip").text_content()
    tab.locator("#strip button", has_text="false pixels").first.click()
    tab.locator("#picture-score", has_text="on a clean image").wait_for()
    drawn = pixels(tab, "right")
    assert near(drawn, pictures.FALSE_ALARM).any() and not near(drawn, pictures.MISSED).any()
    tab.locator("#strip button", has_text="costs").last.click()  # a typical one
    tab.wait_for_function("!document.querySelector('#picture-score').textContent.includes('clean')")
    kept = Examples.load(inspection / "examples.npz").photos[tab.locator("#picture-name").text_content()]
    target, prediction = kept.target.unpack().ravel(), kept.prediction.unpack().ravel()
    drawn = pixels(tab, "right")
    assert np.array_equal(near(drawn, pictures.MISSED), (target == 1) & (prediction == 0))
    assert np.array_equal(near(drawn, pictures.FALSE_ALARM), (target == 0) & (prediction == 1))


def test_a_background_is_transparent_until_it_is_asked_for(opened, inspection):
    tab = opened(page.write_report(inspection))
    tab.locator("#right").get_by_label("prediction").check()
    chip = tab.locator("#legend button", has_text="background")
    assert chip.get_attribute("aria-pressed") == "false" and (pixels(tab, "right")[:, 3] == 0).any()
    chip.click()
    assert (pixels(tab, "right") == [0, 0, 0, 255]).all(axis=1).any()


def test_a_picture_is_zoomed_and_moved_by_keyboard_and_by_buttons(opened, folders):
    tab = opened(page.write_report(folders[0]))
    drawn = "new DOMMatrix(getComputedStyle(document.querySelector('#left-layer canvas')).transform)"
    tab.locator("#closer").click()
    assert tab.evaluate(f"{drawn}.a") == pytest.approx(1.5)
    before = tab.evaluate(f"{drawn}.e")
    tab.locator("#stage").focus()
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate(f"{drawn}.e") < before
    tab.locator("#fit").click()
    assert tab.evaluate(f"{drawn}.a") == 1 and tab.evaluate(f"{drawn}.e") == 0
    box = tab.locator("#stage").bounding_box()
    tab.mouse.dblclick(box["x"] + 10, box["y"] + 100)
    assert tab.evaluate(f"{drawn}.a") >= 2


def test_all_images_are_paged_sorted_by_a_class_filtered_and_saved_as_csv(opened, inspection):
    tab = opened(page.write_report(inspection))
    assert tab.locator("#cells li").count() == 24 and tab.locator("#page").text_content() == "1 of 2"
    tab.locator("#after").click()
    assert tab.locator("#cells li").count() == 6 and tab.locator("#after").is_disabled()
    tab.locator("#sort").select_option(label="IoU of =defect")
    evidence = PerImage.load(inspection / "per_image.npz")
    ious = ratio(*evidence.areas())[:, 1]
    shown = tab.locator("#cells .about b").all_text_contents()
    assert shown == [evidence.names[n] for n in np.argsort(ious.round(3), kind="stable")[:24]]
    tab.locator("#filter").fill("part 2")
    assert tab.locator("#cells li").count() == 11
    with tab.expect_download() as saved:
        tab.locator("#csv").click()
    rows = list(csv.reader(saved.value.path().read_text(encoding="utf-8-sig").splitlines()))
    assert len(rows) == 12 and rows[0][-1] == "IoU =defect" and all(row[0].startswith("'=part 2") for row in rows[1:])
    number = int(rows[1][0].split()[-1])
    assert float(rows[1][1]) == pytest.approx(image_ious(evidence)[number], abs=1e-4)
    tab.locator("#cells button").first.click()
    tab.wait_for_function("() => document.querySelector('#picture-name').textContent.includes('part 2')")


def test_the_first_run_stands_at_the_left_and_both_networks_are_named(opened, folders):
    tab = opened(page.write_report(*folders))
    checked = tab.locator(".choices :checked + span").all_text_contents()
    assert checked == ["new", "old"] and tab.locator("h1").text_content().split() == ["new", "against", "old"]
    assert [text.split(":")[0].strip() for text in tab.locator(".sub").all_text_contents()] == ["new", "old"]


@pytest.mark.parametrize("width", [400, 1280])
def test_every_column_and_every_section_can_be_reached(opened, inspection, width):
    tab = opened(page.write_report(inspection), width=width)
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    head = tab.locator("#classes th", has_text="pixels %")
    head.scroll_into_view_if_needed()
    assert head.is_visible() and right_end(head.bounding_box()) <= width
    links = tab.locator("nav a")
    assert all(right_end(links.nth(n).bounding_box()) <= width for n in range(links.count()))
    rows: dict[float, float] = {}
    for n in range(tab.locator(".tile").count()):
        box = tab.locator(".tile").nth(n).bounding_box()
        rows[box["y"]] = max(rows.get(box["y"], 0), right_end(box))
    assert max(rows.values()) - min(rows.values()) < 1  # no hole at the end of a row


def right_end(box: dict) -> float:
    return box["x"] + box["width"]


def test_a_tall_picture_leaves_no_empty_space_beside_it(opened, inspection):
    tab = opened(page.write_report(inspection))
    stage, strip = tab.locator("#stage").bounding_box(), tab.locator("#strip").bounding_box()
    assert strip["y"] < stage["y"] + stage["height"] and right_end(stage) <= strip["x"] < right_end(stage) + 40


def test_the_page_of_a_training_that_goes_on_loads_itself_again(opened, folders):
    path = page.write_report(folders[0], progress=(400, 8000))
    path.write_text(path.read_text().replace('data-every="30"', 'data-every="0.3"'))
    tab = opened(path)
    assert "iteration 400 of 8" in tab.locator("#live").text_content()
    page.write_report(folders[0])  # the training is over
    tab.locator("#live").wait_for(state="detached", timeout=20_000)


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
