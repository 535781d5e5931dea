"""Identifies a checkpoint by the names and shapes of its tensors, and builds its model."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from hrseg import config as settings
from hrseg import models
from hrseg.config import ModelConfig
from hrseg.errors import WeightsError, nearest
from hrseg.models.c1 import C1
from hrseg.models.classifier import HRNetClassifier, IncreasedHRNet
from hrseg.models.detection import HRNetV2p
from hrseg.models.encoder import SUFFIXES
from hrseg.models.hrnet import VARIANTS, HRNet, set_bn_momentum
from hrseg.models.hrnetv2 import HRNetV2
from hrseg.models.ocrnet import OCRNet
from hrseg.models.pose import PoseHRNet
from hrseg.task import LabelSpace, Normalisation, Task
from hrseg.weights.class_names import label_space
from hrseg.weights.families import ALIGN_QUESTION, FAMILIES, Family
from hrseg.weights.matching import (
    ENCODER,
    RecognisedNames,
    match_tensors,
    recognise_architecture,
    recognise_family,
    rename_tensors,
)
from hrseg.weights.report import Report
from hrseg.weights.smp_models import (
    CLASSIFICATION_HEAD,
    HEAD,
    SmpModel,
    from_shapes,
    from_smp_settings,
    usual_normalisation,
)
from hrseg.weights.source import SMP_SETTINGS, Checkpoint, Source, read_checkpoint

# The class of each architecture, and its argument for the number of outputs.
ARCHITECTURES: dict[str, tuple[type[nn.Module], str]] = {
    "hrnetv2": (HRNetV2, "classes"),
    "ocrnet": (OCRNet, "classes"),
    "c1": (C1, "classes"),
    "classifier": (HRNetClassifier, "classes"),
    "increased": (IncreasedHRNet, ""),
    "pose": (PoseHRNet, "joints"),
    "detection": (HRNetV2p, "out_channels"),
}
# Tensors whose first dimension is that number; the first that is present counts.
OUTPUT_TENSORS = {
    "classes": ("segmentation_head.conv.weight", "segmentation_head.conv.bias", "classifier.weight", "classifier.bias"),
    "joints": ("head.weight", "head.bias"),
    "out_channels": ("neck.reduction.weight", "neck.reduction.bias"),
}
SEGMENTING = ("hrnetv2", "ocrnet", "c1")
WITH_ALIGN_CORNERS = ("hrnetv2", "ocrnet")
# Settings of hrseg's `model` section that are not options of the architecture, or are kept elsewhere.
SETTINGS = (*ModelConfig.model_fields, "align_corners", "outputs")


@dataclass(frozen=True)
class IdentifiedCheckpoint:
    """What a checkpoint is: enough to rebuild the model it was saved from.

    architecture: a name of ARCHITECTURES, an architecture of smp (hrseg's own checkpoints), or "encoder". outputs:
    classes, joints or channels. space: its classes; None where it does not segment. questions: what the file cannot
    tell, and what was assumed. config: the settings, in a checkpoint of hrseg. tensors: by the model's names.
    """

    source: str
    family: Family
    architecture: str
    encoder: str
    outputs: int | None
    in_channels: int = 3
    align_corners: bool = False
    bn_momentum: float | None = None
    normalisation: Normalisation = field(default_factory=Normalisation)
    space: LabelSpace | None = None
    options: dict[str, Any] = field(default_factory=dict)
    questions: tuple[str, ...] = ()
    config: dict[str, Any] | None = None
    threshold: float | None = None  # of hrseg's own binary models
    report: Report = field(default_factory=lambda: Report(""))
    tensors: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def variant(self) -> str:
        """The variant of the HRNet, e.g. w48; for other encoders the whole name."""
        return self._variant_and_fusion()[0]

    @property
    def fusion(self) -> str:
        """How the HRNet fuses: a name of FUSIONS; "" for other encoders."""
        return self._variant_and_fusion()[1]

    def _variant_and_fusion(self) -> tuple[str, str]:
        if not self.encoder.startswith("hrnetv2_"):
            return self.encoder, ""
        name = self.encoder.removeprefix("hrnetv2_")
        for suffix, options in SUFFIXES.items():
            if suffix and name.endswith(suffix):
                return name.removesuffix(suffix), options["fusion"]
        return name, "bilinear"

    def __str__(self) -> str:
        _, counted = ARCHITECTURES.get(self.architecture, (None, "classes"))
        head = "none: an encoder" if self.architecture == "encoder" else self.architecture
        count = f", {self.outputs} {counted.replace('_', ' ')}" if self.outputs else ""
        names = f" ({', '.join(self.space.names[:3])}, ...)" if self.space else ""
        mean, std = (" ".join(f"{v:g}" for v in values) for values in (self.normalisation.mean, self.normalisation.std))
        lines = [
            f"family         {self.family.name}: {self.family.about}",
            f"variant        {self.variant}, as encoder {self.encoder}",
            f"head           {head}{count}{names}",
            f"interpolation  fusion {self.fusion or 'unknown'}, align_corners {self.align_corners} in the head",
            f"normalisation  mean {mean}, std {std}",
            f"tensors        {self.report}",
            self.report.table(),
        ]
        return "\n".join([*lines, *(f"to decide      {question}" for question in self.questions)])


def inspect(
    source: Source | Checkpoint,
    *,
    family: str | None = None,
    align_corners: bool | None = None,
    encoder_only: bool = False,
) -> IdentifiedCheckpoint:
    """Identify a checkpoint by the names and shapes of its tensors, never by the file's name.

    family: where the names mislead. align_corners: the answer where the file cannot tell. The report may say that the
    file is incomplete; `build_model` then refuses it. Raises WeightsError where there is no HRNet in it.
    """
    checkpoint = source if isinstance(source, Checkpoint) else read_checkpoint(source)
    if isinstance(checkpoint.beside.get("config"), Mapping) and "normalisation" in checkpoint.beside:
        identified = _from_settings(checkpoint)
        reading = recognise_family(checkpoint, family, _model_on_meta(identified).state_dict().keys())
    elif SMP_SETTINGS in checkpoint.beside:
        found = from_smp_settings(checkpoint.beside[SMP_SETTINGS], checkpoint.source)
        identified = _of_smp(checkpoint, found, settings_known=True)
        reading = recognise_family(checkpoint, family, _model_on_meta(identified).state_dict().keys())
        heads = [key for key, name in reading.inside.items() if name.startswith(CLASSIFICATION_HEAD)]
        inside = {key: name for key, name in reading.inside.items() if key not in heads}
        reading = reading._replace(inside=inside, outside=[*reading.outside, *heads])
    else:
        reading = recognise_family(checkpoint, family)
        identified = _from_names(checkpoint, reading, align_corners, encoder_only)
        if identified.architecture == "encoder" and not encoder_only and (named := _smp_of_names(checkpoint, reading)):
            identified = _of_smp(checkpoint, named, settings_known=False)
            reading = reading._replace(family=None)
    if encoder_only and identified.architecture != "encoder":
        identified = replace(identified, architecture="encoder", outputs=None, space=None, options={}, config=None)
    tensors, report = match_tensors(
        _model_on_meta(identified), checkpoint, reading, encoder_only=encoder_only, strict=True
    )
    return replace(identified, tensors=tensors, report=report)


def build_model(identified: IdentifiedCheckpoint | Source) -> nn.Module:
    """The model of a checkpoint, with its weights and the function it was trained with, in evaluation mode on the CPU.

    Raises WeightsError, naming the tensors, where any has no counterpart.
    """
    if not isinstance(identified, IdentifiedCheckpoint):
        identified = inspect(identified)
    if not identified.report.fits:
        raise WeightsError(identified.source, f"is not complete: {identified.report}.", "Is it truncated, or edited?")
    model = _model_on_meta(identified)
    model.load_state_dict(identified.tensors, assign=True)
    if identified.bn_momentum is not None:
        set_bn_momentum(model, identified.bn_momentum)
    return model.eval()


def _model_on_meta(identified: IdentifiedCheckpoint) -> nn.Module:
    """The model on the meta device: its initial values are not needed."""
    known = {**models.ARCHITECTURES, **{name: cls for name, (cls, _) in ARCHITECTURES.items()}}
    options = dict(identified.options)
    with torch.device("meta"):
        if identified.architecture == "encoder":
            return smp.encoders.get_encoder(
                identified.encoder, in_channels=identified.in_channels, depth=5, weights=None
            )
        if identified.architecture not in known:
            raise WeightsError(
                identified.source,
                f"no architecture '{identified.architecture}'.",
                nearest(identified.architecture, known),
            )
        _, counted = ARCHITECTURES.get(identified.architecture, (None, "classes"))
        if counted:
            options[counted] = identified.outputs
        if identified.architecture in WITH_ALIGN_CORNERS:
            options["align_corners"] = identified.align_corners
        if identified.architecture not in ARCHITECTURES:
            options["encoder_weights"] = None  # smp's own architectures would fetch ImageNet weights by default
        try:
            return known[identified.architecture](
                encoder_name=identified.encoder, in_channels=identified.in_channels, **options
            )
        except (TypeError, ValueError, KeyError) as error:
            raise WeightsError(
                identified.source, f"its {identified.architecture} over {identified.encoder} cannot be built: {error}."
            ) from error


def _from_names(
    checkpoint: Checkpoint, reading: RecognisedNames, align_corners: bool | None, encoder_only: bool
) -> IdentifiedCheckpoint:
    family = reading.family
    assert family is not None
    head = recognise_architecture(reading)
    names, _ = rename_tensors(reading)
    shapes = {name: checkpoint.tensors[key].shape for key, name in names.items()}
    architecture = "encoder" if encoder_only else head
    attention = _attention(shapes)
    fusion, questions = family.fusion, [family.question] if family.question else []
    if family.name == "trunk" and attention:
        questions = []  # only one family has it
    if len(family.fusions) > 1:
        aligned = head == "ocrnet" if align_corners is None else align_corners
        fusion = family.fusions[aligned]
        questions = [ALIGN_QUESTION.format(assumed=aligned)] if align_corners is None else []
    suffix = attention or next(suffix for suffix, options in SUFFIXES.items() if options == {"fusion": fusion})
    _, counted = ARCHITECTURES.get(architecture, (None, ""))
    outputs = next((shapes[name][0] for name in OUTPUT_TENSORS[counted] if name in shapes), 1) if counted else None
    space = None
    if architecture in SEGMENTING and outputs is not None:
        space, assumed = label_space(checkpoint, outputs)
        questions += [assumed] if assumed else []
    first = shapes.get(f"{ENCODER}conv1.weight", ())
    return IdentifiedCheckpoint(
        checkpoint.source,
        family,
        architecture,
        f"hrnetv2_{_variant(checkpoint, shapes)}{suffix}",
        outputs,
        in_channels=first[1] if len(first) == 4 else 3,
        align_corners=fusion == "bilinear_ac",
        bn_momentum=0.1 if head == "ocrnet" else family.bn_momentum,
        normalisation=family.normalisation,
        space=space,
        questions=tuple(questions),
    )


def _smp_of_names(checkpoint: Checkpoint, reading: RecognisedNames) -> SmpModel | None:
    """The model of smp that a file without settings holds: an HRNet below one of its decoders."""
    if reading.family is None or not any(name.startswith(HEAD) for name in reading.inside.values()):
        return None
    names, _ = rename_tensors(reading)
    encoder = f"hrnetv2_{_variant(checkpoint, {n: checkpoint.tensors[k].shape for k, n in names.items()})}"
    shapes = {bare: tuple(checkpoint.tensors[key].shape) for key, bare in reading.inside.items()}
    return from_shapes(shapes, encoder + _attention(shapes))


def _of_smp(checkpoint: Checkpoint, found: SmpModel, *, settings_known: bool) -> IdentifiedCheckpoint:
    """A model of smp, whose file has neither classes nor normalisation, and maybe no settings either."""
    space, assumed = label_space(checkpoint, found.outputs)
    normalisation = usual_normalisation(found)
    mean, std = (" ".join(f"{v:g}" for v in values) for values in (normalisation.mean, normalisation.std))
    questions = [assumed] if assumed else []
    questions.append(f"The normalisation is not in the file. Assumed: values of 0 to 255, mean {mean}, std {std}.")
    if not settings_known and found.encoder.startswith("hrnetv2_"):
        questions.append(
            f"How the encoder interpolates is not in the file. Assumed: {found.encoder}, bilinear. If it was built as "
            f"{found.encoder}_nearest or {found.encoder}_ac, load it into a model of that name: hrseg.weights.load."
        )
    options = dict(found.options)
    return IdentifiedCheckpoint(
        checkpoint.source,
        FAMILIES["smp"],
        found.architecture,
        found.encoder,
        found.outputs,
        in_channels=found.in_channels,
        align_corners=bool(options.pop("align_corners", False)),
        normalisation=normalisation,
        space=space,
        questions=tuple(questions),
        options=options,
    )


def _variant(checkpoint: Checkpoint, shapes: Mapping[str, Collection[int]]) -> str:
    """The HRNet's variant: by its width, and for the two of width 18 by the names that are present."""
    widths: Counter[float] = Counter()
    for name, shape in shapes.items():
        match = re.search(r"stage\d\.\d+\.branches\.(\d)\.\d+\.conv1\.weight$", name)
        if match and len(shape) == 4:
            widths[next(iter(shape)) / 2 ** int(match[1])] += 1
    width = widths.most_common(1)[0][0] if widths else None
    candidates = [name for name, variant in VARIANTS.items() if width in (variant.width, None)]
    if not candidates:
        raise WeightsError(checkpoint.source, f"holds an HRNet of width {width}.", f"Known: {', '.join(VARIANTS)}.")
    names = {name.removeprefix(ENCODER) for name in shapes if name.startswith(ENCODER)}
    return min(candidates, key=lambda candidate: len(_names_of(candidate) ^ names))


@functools.cache
def _names_of(variant: str) -> frozenset[str]:
    with torch.device("meta"):
        return frozenset(HRNet(variant).state_dict())


def _attention(shapes: Collection[str]) -> str:
    """The suffix of the encoder's name where its blocks have polarized self-attention."""
    if any(".deattn.conv_up.0." in name for name in shapes):
        return "_psa_s"
    return "_psa_p" if any(".deattn." in name for name in shapes) else ""


def _from_settings(checkpoint: Checkpoint) -> IdentifiedCheckpoint:
    """Identify a checkpoint of hrseg by its own settings."""
    beside = checkpoint.beside
    try:
        own = dict(beside["config"]["model"])
        arch, encoder = str(own["arch"]), str(own["encoder"])
        normalisation = Normalisation.from_plain(beside["normalisation"])
        space = LabelSpace.from_plain(beside) if beside.get("classes") is not None else None
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(checkpoint.source, f"its settings cannot be read: {error!r}.") from None
    if ":" in arch:
        way_out = "Build the model yourself, then hrseg.weights.load(model, FILE)."
        raise WeightsError(checkpoint.source, f"its architecture is code outside hrseg, {arch}.", way_out)
    return IdentifiedCheckpoint(
        checkpoint.source,
        FAMILIES["hrseg"],
        arch,
        encoder,
        space.outputs if space is not None else own.get("outputs"),
        in_channels=normalisation.channels,
        align_corners=bool(own.get("align_corners", False)),
        bn_momentum=own.get("bn_momentum"),
        normalisation=normalisation,
        space=space,
        options={key: value for key, value in own.items() if key not in SETTINGS},
        config=dict(beside["config"]),
        threshold=beside.get("threshold"),
    )


def checkpoint_settings(identified: IdentifiedCheckpoint) -> dict[str, Any]:
    """What a checkpoint of hrseg holds beside its tensors: enough to build the model and to prepare its images."""
    model: dict[str, Any] = {"arch": identified.architecture, "encoder": identified.encoder}
    if identified.bn_momentum is not None:
        model["bn_momentum"] = identified.bn_momentum
    if identified.align_corners:
        model["align_corners"] = True
    model |= identified.options
    if identified.config is not None:
        config = identified.config
    elif identified.space is not None:
        data: dict[str, Any] = {"mean": list(identified.normalisation.mean), "std": list(identified.normalisation.std)}
        if identified.space.task is not Task.MULTICLASS:
            data["task"] = identified.space.task.value
        config = settings.parse({"model": model, "data": data}).to_plain()
    else:
        config = {"model": {**model, "outputs": identified.outputs}}
    space = (
        identified.space.to_plain()
        if identified.space is not None
        else {"classes": None, "task": None, "ignore_index": None}
    )
    origin = {"family": identified.family.name, "source": identified.source}
    return {
        "format": 1,
        "config": config,
        "normalisation": identified.normalisation.to_plain(),
        **space,
        **({} if identified.threshold is None else {"threshold": identified.threshold}),
        "origin": origin,
    }
