"""A local web page: drop an image on it, see its classes."""

from __future__ import annotations

import dataclasses
import html
import os
import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from hrseg.errors import ConfigError, HrsegError
from hrseg.predict.prediction import Prediction, legend_html
from hrseg.predict.predictor import Predictor
from hrseg.report.pictures import legend_colors, overlay
from hrseg.task import Task

OVERLAY_SIDE = 2048  # pixels of the longer side of the overlay on the page
HOUR_S = 3600
RESULTS_KEPT = 16
NARROWEST = 320  # pixels of a picture beside another
# Only this server: gradio's page would otherwise fetch fonts and a script from others.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:"
)


def build_page(predictor: Predictor, title: str) -> Any:
    """The page, a gradio Blocks object. Raises HrsegError where gradio is not installed."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before it is imported: it would report every start
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio
    except ImportError:
        raise HrsegError("gradio", "is not installed.", "pip install 'hrseg[serve]'.") from None

    space, results = predictor.space, ResultFiles()
    binary = space.task is Task.BINARY
    all_classes = f"<p>The classes it knows:</p>{legend_html(legend_colors(predictor.space, over_image=True))}"

    def segment(path: str | None, *how: Any) -> tuple[Any, ...]:
        if path is None:
            nothing = gradio.Image(None, visible=False), all_classes, gradio.File(None, visible=False)
            return (None, *nothing, gradio.Column(visible=False))
        try:
            prediction = predictor(path, probabilities=binary)
        except HrsegError as error:
            raise gradio.Error(f"{error.what} {error.way_out}".strip(), print_exception=False) from None
        answer = Answer(prediction, Path(path).stem)
        return answer, *show(answer, *how), gradio.Column(visible=True)

    def show(answer: Answer | None, opacity: float, shown: list[str], threshold: float) -> tuple[Any, ...]:
        if answer is None:
            raise gradio.Error("Drop an image first.", print_exception=False)
        prediction = answer.at(threshold) if binary else answer.prediction
        picture = with_classes(prediction, shown, opacity / 100)
        picture.thumbnail((OVERLAY_SIDE, OVERLAY_SIDE))
        files = [str(path) for path in results.add(prediction, answer.name)]
        return gradio.Image(picture, visible=True), legend_and_notes(prediction), gradio.File(files, visible=True)

    with gradio.Blocks(title=title, analytics_enabled=False, delete_cache=(HOUR_S, HOUR_S)) as blocks:
        gradio.Markdown(
            f"# {html.escape(title)}\nDrop an image. It is segmented on this machine and sent nowhere else."
        )
        last = gradio.State(None, time_to_live=HOUR_S)
        with gradio.Row():  # on a narrow screen one below the other
            with gradio.Column(min_width=NARROWEST):
                image = gradio.Image(
                    type="filepath", image_mode=None, sources=["upload", "webcam", "clipboard"], label="image"
                )
            with gradio.Column(min_width=NARROWEST):
                result = gradio.Image(
                    label="classes", interactive=False, buttons=["download", "fullscreen"], visible=False
                )
        with gradio.Column(visible=False) as controls:
            opacity = gradio.Slider(0, 100, 55, step=1, label="opacity of the classes, %")
            threshold = gradio.Slider(
                0.01, 0.99, predictor.inference.threshold, step=0.01,
                label=f"threshold: probability from which a pixel is {space.names[-1]}",
                visible=binary,
            )  # fmt: skip
            drawn = [name for index, name in enumerate(space.names) if index != space.background]
            shown = gradio.CheckboxGroup(drawn, value=drawn, label="classes shown", visible=len(drawn) > 1)
        legend = gradio.HTML(all_classes, elem_id="legend")
        files = gradio.File(
            label="results: class indices, colours, overlay (PNG)", file_count="multiple", interactive=False,
            visible=False,
        )  # fmt: skip
        how, pictures_and_files = [opacity, shown, threshold], [result, legend, files]
        image.change(segment, [image, *how], [last, *pictures_and_files, controls], api_visibility="private")
        for slider in (opacity, threshold):
            slider.release(show, [last, *how], pictures_and_files, api_visibility="private", show_progress="hidden")
        shown.input(show, [last, *how], pictures_and_files, api_visibility="private", show_progress="hidden")
    return blocks


def legend_and_notes(prediction: Prediction) -> str:
    """The legend of a prediction and the notes on its image, as HTML."""
    notes = "".join(f"<p>{note}.</p>" for note in prediction.notes)
    return f"{prediction.legend()}{notes}"


class Answer(NamedTuple):
    """What the page shows, until another image is dropped. name: of the image's file."""

    prediction: Prediction
    name: str

    def at(self, threshold: float) -> Prediction:
        """The prediction of a binary task in which a pixel is foreground from this probability on."""
        labels = (self.prediction.probabilities[0] >= threshold).astype(np.uint8)
        return dataclasses.replace(self.prediction, labels=labels)


def with_classes(prediction: Prediction, shown: Sequence[str], opacity: float) -> Image.Image:
    """The overlay with these classes alone; where others are, the image as it is."""
    space = prediction.space
    hidden = [index for index, name in enumerate(space.names) if name not in shown]
    labels = prediction.labels
    if space.task is Task.MULTILABEL:
        labels = labels.copy()
        labels[hidden] = 0
    picture = overlay(prediction.image, labels, space, opacity)
    if space.task is not Task.MULTILABEL:
        nothing = np.isin(labels, hidden)
        picture[nothing] = prediction.image[nothing]
    return Image.fromarray(picture)


class ResultFiles:
    """Class indices, colours and overlays as files for the page to offer; the last few are kept."""

    def __init__(self) -> None:
        self._folders: deque[tempfile.TemporaryDirectory] = deque()

    def add(self, prediction: Prediction, name: str) -> list[Path]:
        folder = tempfile.TemporaryDirectory(prefix="hrseg-")
        self._folders.append(folder)
        if len(self._folders) > RESULTS_KEPT:
            self._folders.popleft().cleanup()
        written = prediction.save(folder.name, name or "image")
        for path in written:  # a browser saves all of them into one folder
            kind = "-".join(path.relative_to(folder.name).parts[:-1])
            path.rename(path.with_name(f"{path.stem}_{kind}{path.suffix}"))
        return sorted(Path(folder.name).rglob("*.png"))


def start_web_page(
    predictor: Predictor, title: str, *, max_mib: int, host: str = "127.0.0.1", port: int | None = None
) -> tuple[Any, str]:
    """Serve the page in the background; returns the gradio Blocks, which the caller closes, and the address.

    max_mib: the largest uploaded file. Images of more than the predictor's max_pixels are refused before decoding.
    Raises ConfigError where the port cannot be used.
    """
    blocks = build_page(predictor, title)
    from starlette.middleware import Middleware  # gradio brings it

    try:
        _, url, _ = blocks.queue(default_concurrency_limit=1, max_size=16).launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            run_history=False,
            app_kwargs={"middleware": [Middleware(OnlyThisServer)]},
            max_file_size=max_mib * 2**20,
            footer_links=[],
            inbrowser=False,
        )
    except OSError as error:
        raise ConfigError(f"{host}:{port}", f"cannot be used: {error}", "Choose another --port.") from error

    return blocks, url


class OnlyThisServer:
    """ASGI middleware: every response tells the browser to load nothing from another server."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, with_policy)
