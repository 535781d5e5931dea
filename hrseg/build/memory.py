"""What a run needs of memory at the least, and a refusal before any of it is allocated."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hrseg.build.optimizer import training_mode
from hrseg.config import AugmentConfig, EvalConfig
from hrseg.errors import ConfigError
from hrseg.task import LabelSpace, Sample

GIB = 2**30
CPU = torch.device("cpu")
CONTROL_GROUP = Path("/sys/fs/cgroup/memory.max")  # a container's limit, control groups version 2
# Published networks save between 1 and 8 KB for each pixel of a training batch; where even this would fit, the exact
# count, which takes a forward pass on the meta device, is left out.
GENEROUS_BYTES_A_PIXEL = 16 * 1024


def room(device: torch.device) -> int:
    """All the memory, in bytes, that a process can have on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = CONTROL_GROUP.read_text().strip() if CONTROL_GROUP.exists() else "max"
    return min(machine, int(limit)) if limit.isdigit() else machine


def require_room_for_samples(config: AugmentConfig, sample: Sample) -> None:
    """Raises ConfigError where an augmented image like `sample`, or a crop, is larger than the machine's memory."""
    height, width, channels = sample.image.shape
    a_pixel = channels * sample.image.itemsize + 1
    factor = (config.scale or (1.0, 1.0))[1]
    if config.short_side:
        factor *= config.short_side / min(height, width)
    elif config.long_side:
        factor *= config.long_side / max(height, width)
    setting = "augment.scale" if config.scale and config.scale[1] > 1 else "augment.short_side, augment.long_side"
    _require(height * width * factor**2 * a_pixel, setting, f"an image of {height}x{width}, enlarged {factor:g} times")
    if config.crop:
        rows, columns = config.crop
        _require(rows * columns * a_pixel, "augment.crop", f"a crop of {rows}x{columns}")


def require_room_for_step(
    model: nn.Module,
    space: LabelSpace,
    sample: Sample,
    images: int,
    device: torch.device,
    *,
    crop: tuple[int, int] | None,
    precision: str,
    frozen_batch_norm: bool = False,
    frozen: Sequence[str] = (),
    shared_batch_norm: bool = False,
) -> None:
    """Raises ConfigError where what one forward pass keeps for the backward pass is more than the device's memory.

    And where one image at a time leaves a batch norm a single value per channel, as after a pooling to 1x1: torch
    refuses that in training. images: per forward pass on this device. crop: (height, width) of the augmented images;
    None: as `sample` is. frozen_batch_norm: it keeps its statistics. frozen: modules that do not learn.
    shared_batch_norm: it counts several processes.
    """
    size = tuple(crop or sample.image.shape[:2])
    shape = (images, sample.image.shape[2], *size)
    pixels = images * size[0] * size[1]
    one_image = images == 1 and not frozen_batch_norm and not shared_batch_norm
    if pixels * GENEROUS_BYTES_A_PIXEL <= room(device) and not one_image:
        return
    shrunk = 1.0 if precision == "fp32" else 0.5
    try:
        kept = kept_for_backward(model, shape, freeze_bn=frozen_batch_norm, frozen=frozen)
    except ValueError as error:  # of batch norm
        if "more than 1 value per channel" not in str(error):
            raise
        what = f"one image of {size[0]}x{size[1]} at a time leaves a batch norm of this model one value per channel."
        way_out = (
            "Take more images at a time (a larger train.batch_size, a smaller train.accumulate, fewer processes), "
            "or set train.freeze_bn=true; for very small crops, larger ones."
        )
        raise ConfigError("augment.crop, train.batch_size", what, way_out) from error
    logits = 3 * pixels * space.outputs * 4  # float32, as are their softmax and gradient, whatever the precision
    need = logits + shrunk * kept
    what = f"a step of {images} images of {size[0]}x{size[1]}"
    _require(need, "augment.crop, train.batch_size", what, device, "A smaller crop, or a larger train.accumulate.")


def require_room_for_evaluation(config: EvalConfig, dataset: Any, device: torch.device) -> None:
    """Raises ConfigError where the logits of the first image alone are more than the device's memory."""
    image, target, _ = dataset[0]
    height, width = image.shape[:2]
    factor = max(config.scales)
    if config.short_side:
        factor *= config.short_side / min(height, width)
    pixels = max(height * width * factor**2, 0 if target is None else target.shape[-2] * target.shape[-1])
    setting = "eval.scales" if max(config.scales) > 1 else "eval.short_side" if config.short_side else "eval"
    what = f"an answer for an image of {height}x{width}, enlarged {factor:g} times,"
    _require(pixels * dataset.space.outputs * 4, setting, what, device)


def kept_for_backward(
    model: nn.Module, shape: tuple[int, ...], *, freeze_bn: bool = False, frozen: Sequence[str] = ()
) -> int:
    """Bytes that one training forward pass in float32 keeps for the backward pass, weights left out.

    shape: of the images, [N, C, H, W]. Counted on the meta device: nothing is allocated. 0 for a model that does not
    run there.
    """
    state = model.state_dict(keep_vars=True)
    on_meta = {name: t.detach().to("meta").requires_grad_(t.requires_grad) for name, t in state.items()}
    # A storage is one Python object as long as somebody holds it, so sets count each once.
    own = {tensor.untyped_storage() for tensor in on_meta.values()}
    kept: set[torch.UntypedStorage] = set()

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage not in own:
            kept.add(storage)
        return tensor

    was_training = model.training
    forward = "forward_train" if hasattr(model, "forward_train") else "forward"
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            training_mode(model, freeze_bn=freeze_bn, frozen=list(frozen))
            _call(model, forward, on_meta, torch.empty(shape, device="meta"))
    except (RuntimeError, NotImplementedError):
        return 0
    finally:
        model.train(was_training)
    return sum(storage.nbytes() for storage in kept)


def _call(model: nn.Module, forward: str, tensors: dict[str, Tensor], image: Tensor) -> Any:
    class Call(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Any:
            return getattr(self.model, forward)(x)

    return functional_call(Call(), {f"model.{name}": tensor for name, tensor in tensors.items()}, image)


def _require(need: float, setting: str, what: str, device: torch.device = CPU, way_out: str = "Choose less.") -> None:
    there = room(device)
    if need > there:
        have = "this machine" if device.type == "cpu" else str(device)
        raise ConfigError(
            setting, f"{what} needs at least {need / GIB:,.0f} GiB; {have} has {there / GIB:,.0f}.", way_out
        )
