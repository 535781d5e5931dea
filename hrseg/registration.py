"""hrseg's encoders and architectures are registered as soon as smp is there, and smp is not imported for that."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

SMP = "segmentation_models_pytorch"


def with_smp() -> None:
    """Import hrseg.models, which registers them, now or right after smp is imported by whomever."""
    if SMP in sys.modules:
        importlib.import_module("hrseg.models")
    else:
        sys.meta_path.insert(0, _AfterImport())


class _AfterImport(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != SMP:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                importlib.import_module("hrseg.models")

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
