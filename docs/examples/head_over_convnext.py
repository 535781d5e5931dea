"""HRNetV2's head over a modern encoder of timm, trained with hrseg's OHEM loss and scored by its confusion matrix.

python docs/examples/head_over_convnext.py                                       # ConvNeXt-tiny, random weights
python docs/examples/head_over_convnext.py tu-convnext_tiny.dinov3_lvd1689m true   # DINOv3's weights: network

timm's names choose the weights: what stands behind the dot is the training they come from.
"""

import sys

import torch

import hrseg


def train(encoder: str = "tu-convnext_tiny", pretrained: bool = False, steps: int = 3) -> tuple[list[float], float]:
    """A few steps on made images of two classes; returns the losses, and the mean IoU on the last images."""
    torch.manual_seed(0)
    model = hrseg.HRNetV2(encoder, encoder_weights="true" if pretrained else None, classes=2)
    loss = hrseg.losses.OhemCrossEntropyLoss(thresh=0.9, min_kept=0.1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)
    losses = []
    for _ in range(steps):
        target = torch.randint(0, 2, (2, 4, 4)).repeat_interleave(16, 1).repeat_interleave(16, 2)
        image = torch.randn(2, 3, 64, 64) + 2 * target.unsqueeze(1)
        value = loss(model(image), target)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    confusion = hrseg.metrics.ConfusionMatrix(classes=2)
    confusion.update(model.predict(image).argmax(1), target)
    return losses, float(hrseg.metrics.miou(confusion.compute(), "cityscapes"))


if __name__ == "__main__":
    losses, score = train(*sys.argv[1:2], pretrained=sys.argv[2:] == ["true"])
    print("losses", *(f"{loss:.3f}" for loss in losses))
    print(f"mean IoU {score:.3f}")
