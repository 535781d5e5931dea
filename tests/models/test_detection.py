from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN, KeypointRCNN, MaskRCNN
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.ops import box_iou

import hrseg  # noqa: F401 (registers the encoders)
from hrseg.models.detection import REFERENCE_NAMES, HRNetV2p
from tests.models.reference import assert_close, reference_input, reference_state, renamed

SIDE = 128
ENCODER = "hrnetv2_w18_small_v1_nearest"
OPTIONS = {"num_classes": 3, "min_size": SIDE, "box_batch_size_per_image": 16, "rpn_post_nms_top_n_train": 100}
DETECTORS = {
    "faster": (FasterRCNN, {}),
    "mask": (MaskRCNN, {}),
    "keypoint": (KeypointRCNN, {"num_keypoints": 2}),
}


@pytest.mark.parametrize("width", [18, pytest.param(32, marks=pytest.mark.long)])
def test_levels_equal_the_reference(golden, width):
    case = f"det_hrnetv2p_w{width}"
    state = {
        **{f"backbone.{k}": v for k, v in reference_state(golden, case, part="backbone").items()},
        **{f"neck.{k}": v for k, v in reference_state(golden, case, part="neck").items()},
    }
    model = HRNetV2p(f"hrnetv2_w{width}_nearest").eval()
    model.load_state_dict(renamed(state, REFERENCE_NAMES))
    expected = np.load(golden / f"{case}.npz")
    with torch.no_grad():
        levels = model(reference_input(*expected["input_hw"]))
    assert list(levels) == ["0", "1", "2", "3", "4"]
    for name, level in levels.items():
        assert_close(level, expected[f"half.out.neck{name}"])


def test_another_encoder_gives_five_levels():
    levels = HRNetV2p("resnet18", out_channels=16).eval()(torch.zeros(1, 3, 64, 96))
    assert [tuple(level.shape[-2:]) for level in levels.values()] == [(16, 24), (8, 12), (4, 6), (2, 3), (1, 1)]


def drawn(count: int) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Images [3, SIDE, SIDE] with a red rectangle (1) and a green ellipse (2) each; keypoints: left end, right end."""
    rng = np.random.default_rng(0)
    ys, xs = np.mgrid[:SIDE, :SIDE] + 0.5
    images, targets = [], []
    for _ in range(count):
        image = rng.uniform(0, 0.3, (3, SIDE, SIDE))
        boxes, masks, keypoints = [], [], []
        for kind in range(2):
            w, h = rng.integers(28, 56, 2)
            x, y = rng.integers(2, SIDE - 58), 2 + 64 * kind + rng.integers(0, 5)
            middle_x, middle_y = x + w / 2, y + h / 2
            across, down = abs(xs - middle_x) / (w / 2), abs(ys - middle_y) / (h / 2)
            mask = np.maximum(across, down) <= 1 if kind == 0 else across**2 + down**2 <= 1
            image[kind, mask] = 1
            boxes.append([x, y, x + w, y + h])
            masks.append(mask)
            keypoints.append([[x, middle_y, 1], [x + w, middle_y, 1]])
        images.append(torch.tensor(image, dtype=torch.float32))
        targets.append(
            {
                "boxes": torch.tensor(np.array(boxes), dtype=torch.float32),
                "labels": torch.tensor([1, 2]),
                "masks": torch.tensor(np.array(masks), dtype=torch.uint8),
                "keypoints": torch.tensor(np.array(keypoints), dtype=torch.float32),
            }
        )
    return images, targets


@pytest.mark.parametrize("kind", DETECTORS)
def test_detector_learns_through_every_part_of_the_backbone(kind):
    cls, options = DETECTORS[kind]
    torch.manual_seed(0)
    every_anchor = {"rpn_batch_size_per_image": 20000}  # so that the few of the coarsest level have a say
    model = cls(HRNetV2p(ENCODER), **options, **OPTIONS, **every_anchor)
    losses = model(*drawn(2))
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    without = [name for name, p in model.backbone.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.long
@pytest.mark.parametrize("kind", DETECTORS)
def test_detector_overfits_ten_drawn_images(kind):
    cls, options = DETECTORS[kind]
    torch.manual_seed(0)
    # torchvision's own heads have four and eight convolutions of 256 and 512 channels: minutes a step on a CPU.
    narrow = {
        "faster": {},
        "mask": {"mask_head": MaskRCNNHeads(64, (64, 256), 1)},
        "keypoint": {"keypoint_head": KeypointRCNNHeads(64, (64, 512))},
    }
    model = cls(HRNetV2p(ENCODER, out_channels=64), **OPTIONS, **options, **narrow[kind])
    images, targets = drawn(10)
    steps = 120
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.01, steps)
    for step in range(steps):
        half = slice(0, 5) if step % 2 else slice(5, 10)
        loss = sum(model(images[half], targets[half]).values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        found = model(images)
    for detections, target in zip(found, targets, strict=True):
        sure = detections["scores"] > 0.5
        assert sorted(detections["labels"][sure].tolist()) == [1, 2]
        order = detections["labels"][sure].argsort()
        assert box_iou(detections["boxes"][sure][order], target["boxes"]).diagonal().min() > 0.7
        if kind == "mask":
            mask, truth = detections["masks"][sure][order, 0] > 0.5, target["masks"].bool()
            assert ((mask & truth).sum((1, 2)) / (mask | truth).sum((1, 2))).min() > 0.7
        if kind == "keypoint":
            distance = (detections["keypoints"][sure][order] - target["keypoints"])[..., :2].norm(dim=-1)
            assert distance.max() < 6  # pixels, of objects 28 to 56 wide
