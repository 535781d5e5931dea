"""Installed packages that do not fit each other, reported before one of them fails with an obscure message."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Sequence

from packaging.requirements import InvalidRequirement, Requirement

# Whose requirements are looked at: the builds of torchvision and torch must match to the last digit.
PACKAGES = ("torchvision", "torch", "segmentation-models-pytorch", "timm", "albumentations")


def misfits(packages: Sequence[str] = PACKAGES) -> list[str]:
    """One sentence for each requirement of a package that the installed packages do not meet; nothing is imported."""
    problems = []
    for package in packages:
        for text in _requirements(package):
            try:
                requirement = Requirement(text)
            except InvalidRequirement:
                continue
            if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
                continue
            there = _version(requirement.name)
            wanted = f"{requirement.name}{requirement.specifier}"
            if there is None:
                problems.append(f"{package} needs {wanted}, which is not installed.")
            elif not requirement.specifier.contains(there, prereleases=True):
                problems.append(f"{package} {_version(package)} needs {wanted}, installed is {there}.")
    return [*problems, *_arrays()]


def _arrays() -> list[str]:
    """A torch built for numpy 1 does not see the arrays of numpy 2, and says so only when it meets one."""
    torch = sys.modules.get("torch")
    if torch is None:
        return []
    import numpy as np

    try:
        torch.from_numpy(np.zeros(1))
    except RuntimeError:
        return [
            f"torch {_version('torch')} cannot read the arrays of numpy {np.__version__}: it was built for another."
        ]
    return []


def _requirements(package: str) -> list[str]:
    try:
        return importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
        return []


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a score may depend on."""
    packages = ("hrseg", "torch", "segmentation-models-pytorch", "timm", "albumentations", "numpy", "pillow")
    return {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in packages}}
