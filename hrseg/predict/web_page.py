"""A local web page: drop an image on it, see its classes."""

from __future__ import annotations

import html
import os
import tempfile
from collections import deque
from pathlib import Path
from typing import Any

from hrseg.errors import ConfigError, HrsegError
from hrseg.predict.prediction import Prediction, legend_html
from hrseg.predict.predictor import Predictor
from hrseg.report.pictures import legend_colors

OVERLAY_SIDE = 2048  # pixels of the longer side of the overlay on the page
HOUR_S = 3600
RESULTS_KEPT = 16
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

    results = ResultFiles()
    all_classes = f"<p>The classes it knows:</p>{legend_html(legend_colors(predictor.space, over_image=True))}"

    def segment(path: str | None) -> tuple[Any, str, Any]:
        if path is None:
            return gradio.Image(None, visible=False), all_classes, gradio.File(None, visible=False)
        try:
            prediction = predictor(path, probabilities=False)
        except HrsegError as error:
            raise gradio.Error(f"{error.what} {error.way_out}".strip(), print_exception=False) from None
        overlay = prediction.overlay()
        overlay.thumbnail((OVERLAY_SIDE, OVERLAY_SIDE))
        indices = str(results.add(prediction, Path(path).stem))
        return gradio.Image(overlay, visible=True), legend_and_notes(prediction), gradio.File(indices, visible=True)

    with gradio.Blocks(title=title, analytics_enabled=False, delete_cache=(HOUR_S, HOUR_S)) as blocks:
        gradio.Markdown(
            f"# {html.escape(title)}\nDrop an image. It is segmented on this machine and sent nowhere else."
        )
        with gradio.Row():
            image = gradio.Image(type="filepath", image_mode=None, sources=["upload", "clipboard"], label="image")
            result = gradio.Image(label="classes", interactive=False, buttons=["download", "fullscreen"], visible=False)
        legend = gradio.HTML(all_classes, elem_id="legend")
        indices = gradio.File(label="class indices (PNG)", interactive=False, visible=False)
        image.change(segment, image, [result, legend, indices], api_visibility="private")
    return blocks


def legend_and_notes(prediction: Prediction) -> str:
    """The legend of a prediction and the notes on its image, as HTML."""
    notes = "".join(f"<p>{note}.</p>" for note in prediction.notes)
    return f"{prediction.legend()}{notes}"


class ResultFiles:
    """Class indices as files for the page to offer; the last few are kept."""

    def __init__(self) -> None:
        self._folders: deque[tempfile.TemporaryDirectory] = deque()

    def add(self, prediction: Prediction, name: str) -> Path:
        folder = tempfile.TemporaryDirectory(prefix="hrseg-")
        self._folders.append(folder)
        if len(self._folders) > RESULTS_KEPT:
            self._folders.popleft().cleanup()
        return prediction.save(folder.name, name or "image", colors=False, overlay=False)[0]


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
