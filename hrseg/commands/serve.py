"""The command `tools/serve.py`: a local page that segments the images dropped on it."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Sequence
from pathlib import Path

from hrseg.console import command, parser

MAX_MIB = 50
MAX_PIXELS = 50_000_000


@command
def main(argv: Sequence[str]) -> int:
    """The page of a checkpoint, until Ctrl-C."""
    options = parser(
        "Start a local page: drop an image, see its classes. Needs gradio: pip install 'hrseg[serve]'.",
        "examples:\n"
        "  tools/serve.py --checkpoint runs/demo/checkpoints/best.pt\n"
        "  tools/serve.py --checkpoint best.pt --port 8000 --device cuda",
    )
    add = options.add_argument
    add("--checkpoint", required=True, action="append", metavar="PATH", help="may be repeated: answers are averaged")
    add("--host", default="127.0.0.1", help="%(default)s: this machine only; 0.0.0.0: everyone who can reach it")
    add("--port", type=int, help="default: the first free one from 7860")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    add("--max-mib", type=int, default=MAX_MIB, metavar="N", help="larger files are refused (%(default)s)")
    add("--max-pixels", type=int, default=MAX_PIXELS, metavar="N", help="larger images are refused (%(default)s)")
    add("--trust-code", action="store_true", help="run code outside hrseg that the checkpoint names")
    args = options.parse_args(argv)
    from hrseg.predict.predictor import Predictor
    from hrseg.predict.web_page import start_web_page

    predictor = Predictor(args.checkpoint, args.device, max_pixels=args.max_pixels, trust_code=args.trust_code)
    path = Path(args.checkpoint[0])
    title = path.parent.parent.name if path.parent.name == "checkpoints" else path.stem
    page, url = start_web_page(predictor, title, host=args.host, port=args.port, max_mib=args.max_mib)
    if not _is_loopback(args.host):
        print(
            f"{args.host}: everyone who reaches this machine can use the page; there is no password.", file=sys.stderr
        )
    print(f"{url} (Ctrl-C ends it)", flush=True)
    try:
        page.block_thread()
    finally:
        page.close(verbose=False)
    return 0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
