"""A network as an ONNX file."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from hrseg.errors import HrsegError

SMALLEST = 64  # pixels of a side where sizes are dynamic: the coarsest feature then still has two


def dynamic_dimensions() -> dict[int, torch.export.Dim]:
    """The dynamic dimensions of images [N, C, H, W], for torch.export."""
    height, width = (torch.export.Dim(name, min=SMALLEST) for name in ("height", "width"))
    return {0: torch.export.Dim("batch"), 2: height, 3: width}


def to_onnx(
    module: nn.Module,
    example: Tensor,
    path: str | Path,
    *,
    dynamic: bool = False,
    output: str = "logits",
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a module that maps an image [N, C, H, W] to one tensor as one ONNX file, through torch.export.

    example: an image of the type, and unless dynamic of the size, that the file is to take. The input is called
    "image". dynamic: N, H and W are dynamic, H and W from 64. metadata: added to the file's own.
    Raises HrsegError where the extra `export` is not installed.
    """
    with quiet():
        try:
            program = torch.onnx.export(
                module.eval(),
                (example,),
                dynamo=True,
                input_names=["image"],
                output_names=[output],
                dynamic_shapes=(dynamic_dimensions(),) if dynamic else None,
                verbose=False,
            )
        except ModuleNotFoundError as error:  # onnx or onnxscript
            raise HrsegError("ONNX", f"needs {error.name}.", 'Install it: pip install "hrseg[export]".') from error
        assert program is not None
        program.model.metadata_props.update(metadata or {})
        program.model.ir_version = _oldest_ir_version(program.model.opset_imports)
        program.save(str(path))


def _oldest_ir_version(opsets: Mapping[str, int]) -> int:
    """The first version of the file format that has these operator sets: older runtimes read no newer one."""
    import onnx

    return onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid(*opset) for opset in opsets.items()])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence exporters, which report their inner steps on every channel; errors still come as exceptions."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
