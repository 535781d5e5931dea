from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from hrseg.models.hrnet import FUSIONS, HEADS, VARIANTS, Fusion, HRNet, initialize, set_bn_momentum
from tests.models.reference import assert_close, reference_input, reference_state

PARAMETERS = {
    "w18_small_v1": 1_477_920,
    "w18_small_v2": 3_860_720,
    "w18": 9_562_260,
    "w30": 25_812_276,
    "w32": 29_305_536,
    "w40": 45_521_216,
    "w44": 54_974_640,
    "w48": 65_325_120,
    "w64": 115_697_600,
}


def small(**options) -> HRNet:
    torch.manual_seed(0)
    return HRNet("w18_small_v1", **options).eval()


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameter_counts_are_the_published_ones(variant):
    with torch.device("meta"):
        network = HRNet(variant)
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[variant]


def test_entries_are_those_of_published_checkpoints_in_their_order(golden):
    keys = json.loads((golden / "timm_hrnet_w18_features_noincre.keys.json").read_text())
    with torch.device("meta"):
        state = HRNet("w18").state_dict()
    assert [[name, list(tensor.shape)] for name, tensor in state.items()] == [key[:2] for key in keys]


def test_nearest_fusion_equals_timm(golden):
    case = "timm_hrnet_w18_features_noincre"
    network = HRNet("w18", fusion="nearest").eval()
    network.load_state_dict(reference_state(golden, case))
    expected = np.load(golden / f"{case}.npz")
    with torch.no_grad():
        features = network(reference_input(*expected["input_hw"]))
    for i, feature in enumerate(features):
        assert_close(feature, expected[f"half.out.feat{i}"])


@pytest.mark.parametrize("fusion", FUSIONS)
def test_fusion_keeps_each_stream_at_its_own_size(fusion):
    sizes = [(25, 39), (13, 20), (7, 10)]  # odd on purpose
    inputs = [torch.randn(2, 8 * 2**r, *size) for r, size in enumerate(sizes)]
    before = [stream.clone() for stream in inputs]
    outputs = Fusion([8, 16, 32], fusion)(inputs)
    assert [out.shape for out in outputs] == [stream.shape for stream in inputs]
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))  # the next branch still needs them


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (37, 3), (97, 131)])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_size_works_in_evaluation(size, fusion):
    with torch.no_grad():
        features = small(fusion=fusion)(torch.randn(1, 3, *size))
    for i, feature in enumerate(features, start=1):
        assert feature.shape[-2:] == tuple(-(-side // 2**i) for side in size)
        assert feature.isfinite().all()


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_lower_depth_gives_the_first_features_of_depth_5_from_its_checkpoint(depth):
    whole, shallow = small(), small(depth=depth)
    shallow.load_state_dict(whole.state_dict())
    x = torch.randn(1, 3, 49, 70)
    features = shallow(x)
    assert len(features) == depth
    assert all(torch.equal(a, b) for a, b in zip(features, whole(x), strict=False))


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_lower_depth_has_no_module_that_its_features_do_without(depth):
    network = small(depth=depth).train()
    sum(feature.sum() for feature in network(torch.randn(2, 3, 64, 64))).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("depth", [0, 6])
def test_other_depths_are_refused(depth):
    with pytest.raises(ValueError, match="from 1 to 5"):
        HRNet("w18_small_v1", depth=depth)


def test_heads_of_published_checkpoints_are_passed_over():
    network = small()
    heads = {f"{head}0.weight": torch.zeros(1) for head in HEADS}
    network.load_state_dict({**network.state_dict(), **heads})


@pytest.mark.parametrize("depth", [1, 4, 5])
def test_nothing_else_is_passed_over(depth):
    state = small().state_dict()
    with pytest.raises(RuntimeError, match=r"Unexpected.*stem2"):
        small(depth=depth).load_state_dict({**state, "stem2.weight": torch.zeros(1)})
    del state["bn1.weight"]
    with pytest.raises(RuntimeError, match=r"Missing.*bn1\.weight"):
        small(depth=depth).load_state_dict(state)


def test_channels_last_goes_through_and_changes_nothing():
    network, x = small(), torch.randn(1, 3, 64, 96)
    expected = network(x)
    features = network.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    for feature, reference in zip(features, expected, strict=True):
        assert feature.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(feature, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_computes_the_same_without_the_streams():
    network, x = small(depth=1), torch.randn(1, 3, 45, 70)
    scripted = torch.jit.script(network)
    assert all(torch.equal(a, b) for a, b in zip(scripted(x), network(x), strict=True))


def test_reference_start_values():
    torch.manual_seed(0)
    network = HRNet("w18_small_v1")
    torch.nn.init.constant_(network.bn1.bias, 7)
    initialize(network, "default")
    assert network.bn1.bias[0] == 7
    initialize(network, "reference")
    assert network.bn1.bias.abs().sum() == 0
    assert network.conv2.weight.std().item() == pytest.approx(0.001, rel=0.02)


def test_reference_start_values_spare_a_pretrained_encoder():
    model = torch.nn.ModuleDict({"encoder": torch.nn.Conv2d(3, 64, 3), "head": torch.nn.Conv2d(64, 64, 3)})
    before = model["encoder"].weight.clone()
    initialize(model, "reference", pretrained_encoder=True)
    assert torch.equal(model["encoder"].weight, before)
    assert model["head"].weight.std().item() == pytest.approx(0.001, rel=0.02)


def test_bn_momentum_is_the_share_of_the_new_batch():
    network = small().train()
    set_bn_momentum(network, 1.0)
    seen = []
    network.bn1.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].mean((0, 2, 3))))
    network(torch.randn(2, 3, 64, 64))
    torch.testing.assert_close(network.bn1.running_mean, seen[0])
