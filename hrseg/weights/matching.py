"""Matches a file's tensors with a model's: which family wrote them, what they are called here, and which fit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hrseg.errors import WeightsError, nearest
from hrseg.models.encoder import ExtraChannels
from hrseg.models.hrnet import HRNet
from hrseg.weights import families
from hrseg.weights.families import BIAS_BEFORE_NORM, CLASSIFIER_HEAD, FAMILIES, Family
from hrseg.weights.report import Report, first_names
from hrseg.weights.source import Checkpoint

ENCODER = "encoder."
BIASES = {bias for pairs in BIAS_BEFORE_NORM.values() for bias, _ in pairs}


class RecognisedNames(NamedTuple):
    """How a checkpoint's names are read.

    family: None where the names are the model's own, whatever network that is. inside: the network's names in the file,
    to the same without wrappers. outside: names that do not belong to the network.
    """

    family: Family | None
    inside: dict[str, str]
    outside: list[str]


def recognise_family(checkpoint: Checkpoint, family: str | None, own: Collection[str] = ()) -> RecognisedNames:
    """The family of a checkpoint: the one that is given, or the one whose names it has.

    own: the names of the model that it is meant for, if there is one. Raises WeightsError where the file holds several
    networks or none.
    """
    inside, outside, roots = families.strip_wrappers(checkpoint.tensors)
    if not roots and own:
        inside, outside = _below_prefix(inside, outside, own)
    if len(roots) > 1:
        raise WeightsError(
            checkpoint.source,
            f"holds {len(roots)} networks, under {', '.join(repr(r) for r in roots)}.",
            "Save the one you mean to a file of its own.",
        )
    bare = set(inside.values())
    if len(bare) < len(inside):
        raise WeightsError(checkpoint.source, "holds tensors twice, with and without a wrapper's name.")
    if family is not None:
        name = families.ALIASES.get(family, family)
        if name not in FAMILIES:
            raise WeightsError(checkpoint.source, f"no family '{name}'.", nearest(name, FAMILIES))
        return RecognisedNames(FAMILIES[name], inside, outside)
    found = families.family_of_names(bare)
    may_be_own = found is None or found.trunk.startswith(ENCODER)
    encoder = [key for key in own if key.startswith(ENCODER)] or list(own)
    if own and may_be_own and all(key in bare or key.endswith("num_batches_tracked") for key in encoder):
        return RecognisedNames(None, inside, outside)
    if found is None:
        first = f"Its first names: {first_names(checkpoint.tensors, 4)}."
        if any("segmentation_head." in name for name in checkpoint.tensors):
            first += (
                " A model of smp? Save it by model.save_pretrained(FOLDER) and give FOLDER, or name its model.arch "
            )
            first += "and model.encoder to tools/test.py."
        raise WeightsError(checkpoint.source, "holds no HRNet that hrseg knows, and no tensors of the model.", first)
    return RecognisedNames(found, inside, outside)


def recognise_architecture(reading: RecognisedNames) -> str:
    """The architecture of the head, from the names; "encoder" where there is none."""
    family = reading.family
    assert family is not None
    return families.architecture_of_names(family, [family.spelled(bare) for bare in reading.inside.values()])


def rename_tensors(reading: RecognisedNames) -> tuple[dict[str, str], dict[str, str]]:
    """Names in the file to names in hrseg, and names in the file that are left out on purpose, with the reason."""
    family = reading.family
    if family is None:
        return dict(reading.inside), {}
    table = sorted(family.names(recognise_architecture(reading)), key=lambda row: -len(row[0]))
    names, dropped = {}, {}
    for key, bare in reading.inside.items():
        reason = family.reason_to_drop(bare)
        if reason:
            dropped[key] = reason
            continue
        spelled = family.spelled(bare)
        there, here = next((row for row in table if spelled.startswith(row[0])), ("", ""))
        names[key] = here + spelled.removeprefix(there)
    return names, dropped


def match_tensors(
    model: nn.Module,
    checkpoint: Checkpoint,
    reading: RecognisedNames,
    *,
    encoder_only: bool = False,
    strict: bool = False,
    extra_channels: ExtraChannels = "tile",
) -> tuple[dict[str, Tensor], Report]:
    """The tensors of a file that fit a model, by the model's names, and what became of each.

    encoder_only: leave the file's head out. strict: the head must be there, with the model's classes, and the input
    channels must be the model's; else the first convolution is adapted. extra_channels: as in `with_input_channels`.
    """
    own = model.state_dict()
    family = reading.family
    names, dropped = rename_tensors(reading)
    is_encoder = not any(name.startswith(ENCODER) for name in own)
    beyond: list[str] = []
    if is_encoder and any(name.startswith(ENCODER) for name in names.values()):
        names, heads = _split(names, lambda name: name.startswith(ENCODER))
        names = {key: name.removeprefix(ENCODER) for key, name in names.items()}
        if strict and not encoder_only:  # a file that is converted whole: its head is not left out in silence
            beyond = heads
        else:
            dropped |= dict.fromkeys(heads, "of a head; the model is an encoder")

    def of_encoder(name: str) -> bool:
        return is_encoder or name.startswith(ENCODER)

    wanted = {name: tensor for name, tensor in own.items() if not encoder_only or of_encoder(name)}
    if encoder_only:
        names, heads = _split(names, of_encoder)
        dropped |= dict.fromkeys(heads, "of the head, left out as asked")
    if not any(name.startswith(CLASSIFIER_HEAD) for name in own) and family is FAMILIES["imagenet"]:
        names, heads = _split(names, lambda name: not name.startswith(CLASSIFIER_HEAD))
        dropped |= dict.fromkeys(heads, "of the ImageNet classifier")
    needless = _needless(model)
    names, leading = _split(names, lambda name: name in own or not name.startswith(needless))
    dropped |= dict.fromkeys(leading, "leads to features that the model does not compute")
    for key in reading.outside:
        counts = "a counter of the wrapper that averages" if families.AVERAGE_COUNTERS.search(key) else ""
        dropped[key] = counts or (family.reason_to_drop(key) if family else "") or "outside the network"

    tensors = {name: checkpoint.tensors[key] for key, name in names.items() if name in wanted}
    filled = _known_without_file(wanted, tensors, family)
    adapted = {} if strict else _of_other_channels(tensors, wanted, of_encoder)
    for name in adapted:
        tensors[name] = with_input_channels(tensors[name], wanted[name].shape[1], extra_channels)
    wrong = [name for name, tensor in tensors.items() if tensor.shape != wanted[name].shape]
    missing = [name for name in wanted if name not in tensors and name not in filled]
    kept = [name for name in own if name not in wanted]
    other_classes: list[str] = []
    if not strict:
        if all(
            of_encoder(name) for name in names.values()
        ):  # the file has no head: the model's keeps its initial values
            kept += [name for name in missing if not of_encoder(name)]
            missing = [name for name in missing if of_encoder(name)]
        other_classes = _of_other_classes([n for n in wrong if not of_encoder(n)], tensors, wanted)
    report = Report(
        checkpoint.source,
        matched=[name for name in tensors if name not in wrong],
        renamed={key: name for key, name in names.items() if key != name and name in wanted},
        dropped=dropped,
        filled=filled,
        missing=missing,
        unexpected=[*(key for key, name in names.items() if name not in wanted), *beyond],
        wrong_shape={
            name: f"{tuple(tensors[name].shape)}, the model's {tuple(wanted[name].shape)}"
            for name in wrong
            if name not in other_classes
        },
        other_classes=other_classes,
        kept=kept,
        adapted=adapted,
        notes=_notes(family, model),
    )
    fitting = {name: tensors[name].to(wanted[name].dtype) for name in report.matched}
    if family is not None and family.absolute_gamma:
        # Gammas of batch norm are the only weights of one dimension.
        gammas = [name for name, tensor in fitting.items() if name.endswith(".weight") and tensor.ndim == 1]
        fitting |= {name: fitting[name].abs() + 1e-5 for name in gammas}
    return fitting | {name: torch.zeros(wanted[name].shape, dtype=wanted[name].dtype) for name in filled}, report


def _split(names: Mapping[str, str], keep: Callable[[str], bool]) -> tuple[dict[str, str], list[str]]:
    """The entries whose hrseg name is to be kept, and the file's names of the others."""
    kept = {key: name for key, name in names.items() if keep(name)}
    return kept, [key for key in names if key not in kept]


def _known_without_file(
    wanted: Collection[str], tensors: Mapping[str, Tensor], family: Family | None
) -> dict[str, str]:
    """Tensors of the model that are not in the file but known to be 0, with the reason."""
    filled = {}
    for name in wanted:
        if name in tensors:
            continue
        module, _, kind = name.rpartition(".")
        if kind == "num_batches_tracked" and f"{module}.running_mean" in tensors:
            filled[name] = "0: the file does not count batches"
        elif family is not None and family.bias != "kept" and name in BIASES and f"{module}.weight" in tensors:
            filled[name] = "0: the convolution has no bias in the file's network"
    return filled


def _needless(model: nn.Module) -> tuple[str, ...]:
    """Prefixes of tensors that a complete HRNet has and the model's, which is less deep, does not."""
    encoder = hrnet_of(model)
    if encoder is None:
        return ("\0",)  # no name begins with it
    prefix = "" if encoder is model else ENCODER
    return tuple(
        prefix + name for name in encoder.absent_names() if not name.startswith((*CLASSIFIER_HEAD, "last_layer."))
    )


def hrnet_of(model: nn.Module) -> HRNet | None:
    """The HRNet that a model is or has as its encoder."""
    encoder = model if isinstance(model, HRNet) else getattr(model, "encoder", None)
    return encoder if isinstance(encoder, HRNet) else None


def _below_prefix(
    inside: Mapping[str, str], outside: list[str], own: Collection[str]
) -> tuple[dict[str, str], list[str]]:
    """The names below the prefix that a wrapper put before those of a model, without it, and all others."""
    first = next(iter(own))
    starts = {bare.removesuffix(first) for bare in inside.values() if bare.endswith(f".{first}")}
    bare = set(inside.values())
    if not starts or first in bare:
        return dict(inside), outside
    prefix = max(starts, key=lambda s: (sum(s + n in bare for n in own), bool(families.AVERAGED_ROOT.search(s)), s))
    below = {key: bare.removeprefix(prefix) for key, bare in inside.items() if bare.startswith(prefix)}
    return below, [*outside, *(key for key in inside if key not in below)]


def _of_other_channels(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], of_encoder: Callable[[str], bool]
) -> dict[str, str]:
    """The convolutions of the image, where the file's and the model's differ in their input channels alone.

    Each with how it is adapted.
    """
    pairs = {n: (tensors[n].shape, wanted[n].shape) for n in tensors if tensors[n].shape != wanted[n].shape}
    wrong = {name: shapes for name, shapes in pairs.items() if of_encoder(name)}
    alike = all(len(a) == len(b) == 4 and a[0] == b[0] and a[2:] == b[2:] for a, b in wrong.values())
    channels = {(a[1], b[1]) for a, b in wrong.values()} if alike else set()
    if len(channels) != 1:
        return {}
    [(file, model)] = channels
    return dict.fromkeys(wrong, f"{file} input channels to the model's {model}")


def with_input_channels(weight: Tensor, channels: int, extra: ExtraChannels = "tile") -> Tensor:
    """A first convolution [out, n, h, w] for images of another number of channels.

    One channel: the sum over the n; others: the n repeated and scaled by n / channels. extra "zero": the n keep their
    weights, those beyond start at 0. Source: timm's `adapt_input_conv` and smp's `patch_first_conv`.
    """
    known = weight.shape[1]
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    if extra == "zero" and channels > known:
        beyond = weight.new_zeros(len(weight), channels - known, *weight.shape[2:])
        return torch.cat([weight, beyond], dim=1)
    return weight[:, torch.arange(channels) % known] * (known / channels)


def _of_other_classes(wrong: list[str], tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """The tensors whose shapes differ in their first dimension alone, all by the same two numbers of classes."""
    heads = [n for n in wrong if tensors[n].ndim and wanted[n].ndim and tensors[n].shape[1:] == wanted[n].shape[1:]]
    pairs = {(len(tensors[n]), len(wanted[n])) for n in heads}
    return heads if len(pairs) == 1 else []


def _notes(family: Family | None, model: nn.Module) -> list[str]:
    """What the model computes differently from the network that the file comes from."""
    fusion = getattr(hrnet_of(model), "fusion", None)
    if family is None or fusion is None or family.name in ("hrseg", "trunk") or fusion in family.fusions:
        return []
    recipe = ", as the reference segmentation recipe does" if family is FAMILIES["imagenet"] else ""
    return [f"its own network fuses by {family.fusion}, the model by {fusion}{recipe}: features move by 5 to 14 %"]
