from __future__ import annotations

import numpy as np
import pytest
import torch

import hrseg  # noqa: F401 (registers the encoders)
from hrseg.models.pose import REFERENCE_NAMES, PoseHRNet, decode
from tests.models.reference import assert_close, reference_input, reference_state, renamed


def test_heatmaps_equal_the_reference(golden):
    case = "pose_w32_256x192"
    model = PoseHRNet("hrnetv2_w32_nearest").eval()
    model.load_state_dict(renamed(reference_state(golden, case), REFERENCE_NAMES))  # strict: no fusion but the finest
    expected = np.load(golden / f"{case}.npz")
    with torch.no_grad():
        assert_close(model(reference_input(*expected["input_hw"])), expected["half.out.heatmaps"])


def test_one_heatmap_a_joint_at_a_quarter_of_an_odd_size():
    model = PoseHRNet("hrnetv2_w18_small_v1_nearest", in_channels=1, joints=5).eval()
    with torch.no_grad():
        assert model(torch.randn(2, 1, 75, 107)).shape == (2, 5, 19, 27)


def test_refuses_an_encoder_without_a_high_resolution_stream():
    with pytest.raises(ValueError, match="resnet18"):
        PoseHRNet("resnet18")


def heatmap(peaks: dict[tuple[int, int], float]) -> torch.Tensor:
    result = torch.zeros(1, 1, 16, 12)
    for (y, x), value in peaks.items():
        result[0, 0, y, x] = value
    return result


@pytest.mark.parametrize(
    ("peaks", "xy", "score"),
    [
        ({(5, 6): 0.9}, (24, 20), 0.9),  # even neighbours: four times the position
        ({(5, 6): 0.9, (5, 7): 0.4, (4, 6): 0.4}, (25, 19), 0.9),  # a quarter towards the right, and up
        ({(5, 6): 0.9, (5, 5): 0.4, (6, 6): 0.4}, (23, 21), 0.9),  # and the other way
        ({(0, 11): 0.9, (0, 10): 0.4, (1, 11): 0.4}, (44, 0), 0.9),  # on the border: no neighbour beyond
        ({(1, 1): 0.9, (1, 2): 0.4, (2, 1): 0.4}, (4, 4), 0.9),  # nor at the second position, as in the reference
        ({(2, 2): 0.9, (2, 3): 0.4, (3, 2): 0.4}, (9, 9), 0.9),
        ({}, (0, 0), 0.0),  # nothing positive: no joint
    ],
)
def test_decode_moves_the_maximum_a_quarter_towards_its_higher_neighbour(peaks, xy, score):
    joints = decode(heatmap(peaks))
    assert tuple(joints.coordinates[0, 0].tolist()) == xy
    assert joints.scores.item() == pytest.approx(score)


def test_decode_reads_every_heatmap_by_itself():
    heatmaps = torch.cat([heatmap({(5, 6): 0.9}), heatmap({(8, 3): 0.7})]).reshape(1, 2, 16, 12).repeat(3, 1, 1, 1)
    joints = decode(heatmaps)
    assert joints.coordinates.shape == (3, 2, 2)
    assert joints.coordinates[2].tolist() == [[24, 20], [12, 32]]
    assert joints.scores.shape == (3, 2)
