"""What all tests share: where the reference data lies, and one thread a test process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

for threads in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(threads, "1")  # the processes of pytest-xdist share the cores
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("WANDB_MODE", "disabled")

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("HRSEG_SHARED", ROOT.parent / "shared"))


def shared_path(*parts: str) -> Path:
    """A path in the folder of reference data; where that is absent the test skips, or fails if it is required."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        message = f"reference data not found: {path} (set HRSEG_SHARED)"
        if os.environ.get("HRSEG_REQUIRE_SHARED") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return path


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of reference outputs."""
    return shared_path("golden")


@pytest.fixture(scope="session")
def camvid() -> Path:
    """CamVid: real street scenes."""
    return shared_path("data", "camvid")
