"""segmentation_models_pytorch with hrseg's encoder, in smp's own style: its decoder, its loss, its metrics.

python docs/examples/smp_style.py
"""

import segmentation_models_pytorch as smp
import torch

import hrseg  # noqa: F401  registers the encoders with smp


def shapes(images: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy images [N, 3, 64, 64] of a brighter square, and its mask [N, 1, 64, 64]."""
    random = torch.Generator().manual_seed(seed)
    mask = torch.zeros(images, 1, 64, 64)
    for plane in mask:
        top, left = torch.randint(0, 40, (2,), generator=random).tolist()
        plane[:, top : top + 24, left : left + 24] = 1
    return 0.5 * torch.randn(images, 3, 64, 64, generator=random) + 2 * mask, mask


def train(steps: int = 30) -> float:
    """Train a U-Net over HRNetV2-W18-small-v1; returns the IoU of the squares in new images."""
    torch.manual_seed(0)
    model = smp.Unet("hrnetv2_w18_small_v1", encoder_weights=None, in_channels=3, classes=1)  # "imagenet": network
    loss = smp.losses.DiceLoss(smp.losses.BINARY_MODE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(steps):
        image, mask = shapes(4, seed=step)
        value = loss(model(image), mask)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    image, mask = shapes(8, seed=1_000_000)
    predicted = model.predict(image).sigmoid() > 0.5
    counts = smp.metrics.get_stats(predicted.long(), mask.long(), mode="binary")
    return float(smp.metrics.iou_score(*counts, reduction="micro"))


if __name__ == "__main__":
    print(f"IoU {train():.3f}")
