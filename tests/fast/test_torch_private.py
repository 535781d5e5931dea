"""Private calls into torch: in one file, guarded, and on which versions they were checked."""

from __future__ import annotations

import ast
import os
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hrseg.fast import fused_graph, torch_private
from hrseg.fast.narrow_batch_norm import WideBatchNorm2d, pixels_at_once
from tests.conftest import ROOT

HOME = ROOT / "hrseg" / "fast" / "torch_private.py"
UNDOCUMENTED = {"native_batch_norm", "batch_norm_update_stats", "ops", "_C"}  # of torch
INNER = {"_cdata", "_buffers", "_parameters", "_modules", "_foreach_norm", "_foreach_lerp_"}  # of any object


def guards() -> list[bool]:
    works = [torch_private.batch_norm_works()]
    if torch.backends.mkldnn.is_available():
        works.append(torch_private.fused_convolution_works(torch.float32))
        if torch_private.cpu_computes_bf16():
            works.append(torch_private.fused_convolution_works(torch.bfloat16))
    return works


def test_private_calls_are_in_use_on_the_versions_they_were_checked_on():
    """Another version falls back where it has to: a warning, and a failure only in CI, where a maintainer looks."""
    version = ".".join(torch.__version__.split(".")[:2])
    works = guards()
    if version in torch_private.CHECKED_VERSIONS:
        assert all(works)
        return
    state = "all of them work" if all(works) else "some fall back to the public way"
    text = f"hrseg's private calls were not checked on torch {version} ({state}); torch_private.CHECKED_VERSIONS"
    assert os.environ.get("HRSEG_REQUIRE_SHARED") != "1", text
    warnings.warn(text, stacklevel=1)


def test_a_guard_moves_no_random_generator():
    before = torch.get_rng_state()
    torch_private.batch_norm_works.__wrapped__()
    torch_private.fused_convolution_works.__wrapped__(torch.float32)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("fault", ["raises", "answers otherwise"])
def test_a_private_call_that_fails_is_seen_by_its_guard(monkeypatch, fault, caplog):
    def faulty(*args, **kwargs):
        if fault == "raises":
            raise RuntimeError("unknown operator")
        return torch.zeros(2, 3, 5, 2)

    def faulty_statistics(x):
        if fault == "raises":
            raise AttributeError("batch_norm_update_stats")
        return torch.zeros(3), torch.ones(3)

    monkeypatch.setattr(torch_private, "convolution", faulty)
    monkeypatch.setattr(torch_private, "batch_statistics", faulty_statistics)
    assert not torch_private.fused_convolution_works.__wrapped__(torch.float32)
    assert not torch_private.batch_norm_works.__wrapped__()
    assert caplog.text.count("the public way is used") == 2


def test_the_public_way_computes_the_same(monkeypatch):
    x, weight = torch.randn(1, 4, 9, 9), torch.randn(5, 4, 3, 3)
    shape, other = ([1, 1], [1, 1], [1, 1], 1), torch.randn(1, 5, 9, 9)
    norm = WideBatchNorm2d(18)
    image = torch.randn(2, 18, 64, 64).contiguous(memory_format=torch.channels_last)
    assert pixels_at_once(image) > 1

    def both():
        return [
            fused_graph.conv(x, weight, None, shape, True),
            fused_graph.conv_add(x, weight, None, shape, True, other, False),
            norm(image),
        ]

    private = both()
    monkeypatch.setattr(torch_private, "can_fuse_convolution", lambda x: False)
    monkeypatch.setattr(torch_private, "batch_norm_works", lambda: False)
    torch.testing.assert_close(both(), private)
    torch.testing.assert_close(private[0], F.conv2d(x, weight, padding=1).relu())
    torch.testing.assert_close(private[2], nn.BatchNorm2d(18)(image))


def private_names(source: str) -> list[str]:
    """Private or undocumented names of torch that a module imports or reads, with their lines."""
    found, torch_names = [], {"torch"}
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ("torch", "torchvision"):
            torch_names |= {alias.asname or alias.name for alias in node.names}
            parts = [*node.module.split("."), *(alias.name for alias in node.names)]
            found += [f"{node.lineno}: {part}" for part in parts if part.startswith("_") and part != "__future__"]
        elif isinstance(node, ast.Import):
            names = [alias for alias in node.names if alias.name.partition(".")[0] in ("torch", "torchvision")]
            torch_names |= {alias.asname or alias.name.partition(".")[0] for alias in names}
            found += [f"{node.lineno}: {alias.name}" for alias in names if "._" in alias.name]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        root: ast.expr = node
        while isinstance(root, ast.Attribute):
            root = root.value
        of_torch = isinstance(root, ast.Name) and root.id in torch_names
        private = node.attr.startswith("_") and not node.attr.startswith("__")
        if (of_torch and (private or node.attr in UNDOCUMENTED)) or node.attr in INNER:
            found.append(f"{node.lineno}: {node.attr}")
    return found


def test_what_is_private_is_recognised():
    source = "import torch\nfrom torch import nn\nfrom torch.utils.data._utils import x\n"
    source += "torch._foreach_norm([])\nnn.modules.dropout._DropoutNd\ntorch.ops.aten.add\nself.storage._cdata\n"
    assert len(private_names(source)) == 5
    assert not private_names("import torch\nself._own = torch.__version__")
    assert private_names(HOME.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", sorted((ROOT / "hrseg").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_other_file_uses_a_private_name_of_torch(path):
    if path != HOME:
        assert not private_names(path.read_text(encoding="utf-8"))
