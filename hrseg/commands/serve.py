"""A local page on which one drops a picture and sees its classes; the command `tools/serve.py`."""

from __future__ import annotations

import html
import ipaddress
import os
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hrseg.console import command, parser
from hrseg.errors import ConfigError, HrsegError
from hrseg.predict.predictor import Prediction, Predictor, legend_html

MAX_MIB = 50
MAX_PIXELS = 50_000_000
SHOWN = 2048  # pixels of the longer side of the overlay on the page
HOUR_S = 3600
KEPT = 16
# Nothing but this server: gradio's page would fetch fonts and a script from elsewhere.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:"
)


def page(predictor: Predictor, title: str) -> Any:
    """The page, a gradio Blocks. Raises HrsegError where gradio is not installed."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before it is imported: it would report each start
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio
    except ImportError:
        raise HrsegError("gradio", "is not installed.", "pip install 'hrseg[serve]'.") from None

    results = Results()

    known = f"<p>What it tells apart:</p>{legend_html({c.name: c.color for c in predictor.space.classes})}"

    def segment(path: str | None) -> tuple[Any, str, Any]:
        if path is None:
            return gradio.Image(None, visible=False), known, gradio.File(None, visible=False)
        try:
            prediction = predictor(path, probabilities=False)
        except HrsegError as error:
            raise gradio.Error(f"{error.what} {error.way_out}".strip(), print_exception=False) from None
        overlay = prediction.overlay()
        overlay.thumbnail((SHOWN, SHOWN))
        indices = str(results.add(prediction, Path(path).stem))
        return gradio.Image(overlay, visible=True), described(prediction), gradio.File(indices, visible=True)

    with gradio.Blocks(title=title, analytics_enabled=False, delete_cache=(HOUR_S, HOUR_S)) as blocks:
        gradio.Markdown(
            f"# {html.escape(title)}\nDrop a picture. It is looked at on this machine and sent nowhere else."
        )
        with gradio.Row():
            given = gradio.Image(type="filepath", image_mode=None, sources=["upload", "clipboard"], label="picture")
            shown = gradio.Image(label="classes", interactive=False, buttons=["download", "fullscreen"], visible=False)
        colors = gradio.HTML(known, elem_id="legend")
        indices = gradio.File(label="class indices (PNG)", interactive=False, visible=False)
        given.change(segment, given, [shown, colors, indices], api_visibility="private")
    return blocks


def described(prediction: Prediction) -> str:
    """Legend and notes as HTML."""
    notes = "".join(f"<p>{note}.</p>" for note in prediction.notes)
    return f"{prediction.legend()}{notes}"


class Results:
    """Class indices as files, for the page to take over; the last few are kept."""

    def __init__(self) -> None:
        self._folders: deque[tempfile.TemporaryDirectory] = deque()

    def add(self, prediction: Prediction, name: str) -> Path:
        folder = tempfile.TemporaryDirectory(prefix="hrseg-")
        self._folders.append(folder)
        if len(self._folders) > KEPT:
            self._folders.popleft().cleanup()
        return prediction.save(folder.name, name or "picture", colors=False, overlay=False)[0]


def start(
    predictor: Predictor, title: str, *, host: str = "127.0.0.1", port: int | None = None, max_mib: int = MAX_MIB
) -> tuple[Any, str]:
    """Serve the page beside the running program; returns the gradio Blocks, to `close`, and the address.

    max_mib: of an uploaded file. Pictures of more than the predictor's max_pixels are refused before they are decoded.
    """
    blocks = page(predictor, title)
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
        raise ConfigError(f"{host}:{port}", f"cannot be listened on: {error}", "Choose another --port.") from error

    return blocks, url


class OnlyThisServer:
    """ASGI middleware: every answer tells the browser to load nothing from elsewhere."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, with_policy)


@command
def main(argv: Sequence[str]) -> int:
    """tools/serve.py: the page of a checkpoint, until Ctrl-C."""
    arguments = parser(
        "Start a local page: drop a picture, see its classes. Needs gradio: pip install 'hrseg[serve]'.",
        "examples:\n"
        "  tools/serve.py --checkpoint runs/demo/checkpoints/best.pt\n"
        "  tools/serve.py --checkpoint best.pt --port 8000 --device cuda",
    )
    add = arguments.add_argument
    add("--checkpoint", required=True, action="append", metavar="PATH", help="given several times, averaged")
    add("--host", default="127.0.0.1", help="%(default)s: this machine only; 0.0.0.0: everyone who can reach it")
    add("--port", type=int, help="default: the first free one from 7860")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    add("--max-mib", type=int, default=MAX_MIB, metavar="N", help="largest file that is taken (%(default)s)")
    add("--max-pixels", type=int, default=MAX_PIXELS, metavar="N", help="largest picture that is taken (%(default)s)")
    add("--trust-code", action="store_true", help="obey code outside hrseg named in the checkpoint")
    args = arguments.parse_args(argv)
    predictor = Predictor(args.checkpoint, args.device, max_pixels=args.max_pixels, trust_code=args.trust_code)
    path = Path(args.checkpoint[0])
    title = path.parent.parent.name if path.parent.name == "checkpoints" else path.stem
    blocks, url = start(predictor, title, host=args.host, port=args.port, max_mib=args.max_mib)
    if not _is_loopback(args.host):
        print(f"{args.host}: whoever reaches this machine can use the page, there is no password.", file=sys.stderr)
    print(f"{url} (Ctrl-C ends it)", flush=True)
    try:
        blocks.block_thread()
    finally:
        blocks.close(verbose=False)
    return 0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
