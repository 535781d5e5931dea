"""What all tests share: where the reference data lies, and one thread a test process."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

for threads in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(threads, "1")  # the processes of pytest-xdist share the cores
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("WANDB_MODE", "disabled")

# No deadline: the cores are shared. Few examples, always the same, in the quick tests; many others in the long ones.
QUIET = [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture]
hypothesis.settings.register_profile(
    "quick", max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=QUIET
)
hypothesis.settings.register_profile("long", max_examples=300, deadline=None, suppress_health_check=QUIET)

pytest_plugins = ["tests.shapes", "tests.browser"]

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("HRSEG_SHARED", ROOT.parent / "shared"))


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile("quick" if "not long" in config.option.markexpr else "long")


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
