"""The page in a real browser: keys, filters, decisions that survive a reload, many suspects, a narrow screen."""

from __future__ import annotations

import json
import time

import pytest

from hrseg.commands.doctor import main
from hrseg.doctor.page import write_page
from hrseg.doctor.suspects import Suspect
from hrseg.task import LabelSpace, SegmentationClass
from tests.doctor.made import FAULTY, doctor_folder, folder

EVIL = "<script>document.title='run'</script>"
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SPACE = LabelSpace((SegmentationClass("ground", (0, 0, 0)), SegmentationClass(EVIL, (200, 0, 0))))


@pytest.fixture
def opened(chromium):
    """Open a page; what the browser complains about, and any request, fails the test at its end."""
    complaints: list[str] = []
    contexts = []

    def open_page(path, width=1280):
        context = chromium.new_context(viewport={"width": width, "height": 800}, offline=True, accept_downloads=True)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto(path.as_uri())
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def many(path, number):
    """A page with many suspects, some of them of a second kind."""
    suspects = [
        Suspect(n, f"{EVIL}/{n}", "views/0.png", "m.png", "00", (0, 0, 4, 4), 16, "ground", EVIL, 0.9, 0.5,
                "wrong class" if n % 3 else "missing object", "", [0, 16])
        for n in range(number)
    ]  # fmt: skip
    cut = {"photo": PIXEL, "label_picture": PIXEL, "said_picture": PIXEL, "outline": PIXEL}
    content = {
        "key": "k", "folder": "/d", "images": [{}] * number, "models": [], "confused_classes": [],
        "near_duplicates": [{"images": [EVIL, "b"], "different": 0.5}], "unusual_images": [],
    }  # fmt: skip
    write_page(path, content, suspects, [cut] * number, SPACE)
    return path


def test_keys_decide_and_decisions_survive_a_reload(opened, tmp_path):
    tab = opened(many(tmp_path / "doctor.html", 6))
    for key in "ATI":
        tab.keyboard.press(key)
    assert tab.locator("#count").text_content() == "3 of 6 decided"
    assert tab.locator("#title").text_content().startswith("4.")
    tab.reload()
    assert tab.locator("#count").text_content() == "3 of 6 decided"
    kept = tab.locator("#list li").evaluate_all("rows => rows.map(row => row.dataset.decision || '')")
    assert kept == ["accept", "take", "ignore", "", "", ""]
    tab.keyboard.press("l")
    assert tab.locator("#count").text_content() == "2 of 6 decided"
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("k")
    assert tab.locator("#title").text_content().startswith("2.")


def test_filters_show_one_class_one_kind_or_what_is_open(opened, tmp_path):
    tab = opened(many(tmp_path / "doctor.html", 9))
    tab.locator("#kind").select_option("missing object")
    assert tab.locator("#list li:visible").count() == 3
    tab.locator("#kind").select_option("")
    tab.locator("#class").select_option(EVIL)
    assert tab.locator("#list li:visible").count() == 9
    tab.locator("#state").select_option("open")
    tab.locator("#suspect").focus()
    tab.keyboard.press("t")
    assert tab.locator("#list li:visible").count() == 8


def test_names_are_shown_and_never_run(opened, tmp_path):
    tab = opened(many(tmp_path / "doctor.html", 2))
    assert tab.title() == "label doctor"
    assert EVIL in tab.locator("#where").text_content() and EVIL in tab.locator("#said-name").text_content()
    assert EVIL in tab.locator(".more").text_content()


def test_two_thousand_suspects_stay_quick(opened, tmp_path):
    tab = opened(many(tmp_path / "doctor.html", 2000))
    started = time.monotonic()
    for _ in range(20):
        tab.keyboard.press("a")
    tab.locator("#kind").select_option("missing object")
    assert tab.locator("#count").text_content() == "20 of 2000 decided"
    assert time.monotonic() - started < 10


def test_a_narrow_screen_needs_no_sideways_scrolling(opened, tmp_path):
    tab = opened(many(tmp_path / "doctor.html", 5), width=360)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360


def test_saved_decisions_mend_the_data(opened, tmp_path, monkeypatch):
    out = tmp_path / "doctor"
    doctor_folder(folder(tmp_path / "data"), out, monkeypatch)
    tab = opened(out / "doctor.html")
    tab.keyboard.press("t")
    with tab.expect_download() as waiting:
        tab.locator("#save").click()
    waiting.value.save_as(tmp_path / "decisions.json")
    saved = json.loads((tmp_path / "decisions.json").read_text())
    assert [(d["image"], d["decision"]) for d in saved["decisions"]] == [(f"street_{FAULTY}", "take")]
    assert main(["apply", str(tmp_path / "decisions.json"), "--out", str(tmp_path / "mended")]) == 0
    assert not (tmp_path / "mended" / "masks" / f"street_{FAULTY}.png").is_symlink()
