"""The `distill` section becomes a teacher and the loss that compares the student with it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from hrseg.build.trained_model import ensemble, load_trained_models
from hrseg.config import DistillConfig
from hrseg.distillation import Distillation, InClassOrder, Teacher, channel_wise_loss, kl_loss
from hrseg.errors import ConfigError
from hrseg.inference import fast_form
from hrseg.task import LabelSpace, Normalisation
from hrseg.weights.source import find_file, sha256

WHERE = "distill.teacher"
USUAL = {"cwd": (3.0, 4.0), "kl": (1.0, 1.0)}  # weight and temperature


def distillation(
    settings: DistillConfig | None, space: LabelSpace, ranges: Normalisation, device: torch.device
) -> Distillation | None:
    """The teacher on the device and how its logits are compared; None without a `distill` section.

    space: the student's classes. ranges: what images the student takes. Raises ConfigError where the teacher has other
    classes, another task or takes other images, WeightsError where it cannot be read.
    """
    if settings is None:
        return None
    members = load_trained_models(settings.teachers)
    first = members[0]
    order = _class_order(first.space, space)
    if first.normalisation.input_range != ranges.input_range:
        what = f"takes images with {_values(first.normalisation)}, the data set's have {_values(ranges)}."
        raise ConfigError(WHERE, what, "Set data.input_range as it was for the teacher, or choose another one.")
    files = [{"path": source, "sha256": sha256(find_file(source))} for source in settings.teachers]
    answering: nn.Module = ensemble(members).requires_grad_(False).eval()
    precision = "fp32"
    if device.type == "cpu":
        answering = fast_form(answering, "torch", precision)
    else:
        precision = first.config.eval.precision or first.config.train.precision
    model = InClassOrder(answering, order).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    weight, temperature = USUAL[settings.kind]
    temperature = settings.temperature or temperature
    compare = channel_wise_loss if settings.kind == "cwd" else partial(kl_loss, task=space.task)
    return Distillation(
        Teacher(model, precision, files), partial(compare, temperature=temperature), settings.weight or weight
    )


def require_same_teachers(saved: Mapping[str, Any], found: Distillation | None) -> None:
    """Raise ConfigError where the checkpoint that is resumed had other teachers, by their contents."""
    before = [each["sha256"] for each in saved.get("teachers") or []]
    now = [each["sha256"] for each in found.teacher.files] if found else []
    if before != now:
        names = ", ".join(each["path"] for each in saved.get("teachers") or []) or "none"
        what = f"the run was taught by other weights ({names})."
        raise ConfigError(WHERE, what, "Set it as it was, or start a new run from its weights: model.weights=PATH.")


def _class_order(theirs: LabelSpace, ours: LabelSpace) -> list[int]:
    """For each output channel of the student, the teacher's; classes are matched by name."""
    if theirs.task is not ours.task:
        raise ConfigError(WHERE, f"is for a {theirs.task.value} task, the data set is {ours.task.value}.")
    lacking = [name for name in ours.names if name not in theirs.names]
    besides = [name for name in theirs.names if name not in ours.names]
    if lacking or besides:
        parts = [f"it lacks {', '.join(lacking)}"] * bool(lacking) + [f"it has {', '.join(besides)}"] * bool(besides)
        what = f"has other classes than the data set: {'; '.join(parts)}."
        raise ConfigError(WHERE, what, "Choose a teacher that was trained with the same classes.")
    if ours.outputs != len(ours.names):  # one output says which of two classes it is
        return list(range(ours.outputs))
    return [theirs.names.index(name) for name in ours.names]


def _values(ranges: Normalisation) -> str:
    values = ", ".join(dict.fromkeys(f"{low:g} to {high:g}" for low, high in ranges.input_range))
    return f"{ranges.channels} channels of {values}"
