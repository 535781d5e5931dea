"""hrseg's encoders and architectures are registered with smp without importing smp first.

`import hrseg` takes 0.1 s; smp, timm and torch, which registering needs, take more than seven seconds. So registering
waits until somebody imports smp.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

SMP = "segmentation_models_pytorch"


def register_with_smp() -> None:
    """Import hrseg.models, which registers them: now where smp is imported, otherwise right after its import."""
    if SMP in sys.modules:
        importlib.import_module("hrseg.models")
    else:
        sys.meta_path.insert(0, _RegisterAfterImport())


class _RegisterAfterImport(MetaPathFinder):
    """Finds smp as Python does, and has its loader import hrseg.models at the end. It acts once."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != SMP:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(SMP)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            importlib.import_module("hrseg.models")

        # A loader belongs to one spec, so this changes the import of smp alone.
        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
