"""What onnxruntime computes from an exported network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hrseg.export.onnx_file import to_onnx
from hrseg.models.hrnetv2 import HRNetV2Decoder, HRNetV2Head

runtime = pytest.importorskip("onnxruntime")


class Small(nn.Module):
    """Every kind of layer that HRNetV2 has."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(8, 8, 3, stride=2, padding=1) for _ in range(3))
        self.decoder = HRNetV2Decoder([8, 8, 8, 8])
        self.head = HRNetV2Head(32, 5)

    def forward(self, x):
        features = [self.stem(x)]
        for down in self.down:
            features.append(down(features[-1]))
        return self.head(self.decoder(features), x.shape[-2:])


@pytest.mark.long
def test_one_file_takes_any_number_and_size(tmp_path):
    torch.manual_seed(0)
    model = Small().eval()
    to_onnx(model, torch.zeros(1, 3, 64, 96), tmp_path / "any.onnx", dynamic=True)
    session = runtime.InferenceSession(tmp_path / "any.onnx")
    for n, height, width in ((1, 64, 96), (2, 97, 131), (1, 160, 72)):
        image = torch.randn(n, 3, height, width)
        (logits,) = session.run(["logits"], {"image": image.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), model(image), atol=1e-6, rtol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["any.onnx"]  # weights inside, not beside


def test_the_file_has_the_oldest_format_that_its_operators_allow(tmp_path):
    """onnxruntime 1.17 reads format 9 at most, and operator set 20."""
    onnx = pytest.importorskip("onnx")
    to_onnx(nn.Conv2d(3, 2, 1), torch.zeros(1, 3, 64, 64), tmp_path / "small.onnx")
    model = onnx.load(tmp_path / "small.onnx")
    assert model.ir_version == onnx.helper.find_min_ir_version_for(model.opset_import) < 10
    onnx.checker.check_model(model)
