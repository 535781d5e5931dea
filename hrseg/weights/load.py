"""What a checkpoint is, and its tensors into a model: all of them, or a refusal that names what does not fit."""

from __future__ import annotations

import functools
import logging
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from hrseg import models
from hrseg.data.ade20k import CLASSES as ADE20K
from hrseg.data.cityscapes_labels import CLASSES as CITYSCAPES
from hrseg.errors import WeightsError, nearest
from hrseg.models.c1 import C1
from hrseg.models.classifier import HRNetClassifier, IncreasedHRNet
from hrseg.models.detection import HRNetV2p
from hrseg.models.encoder import SUFFIXES
from hrseg.models.hrnet import VARIANTS, HRNet, set_bn_momentum
from hrseg.models.hrnetv2 import HRNetV2
from hrseg.models.ocrnet import OCRNet
from hrseg.models.pose import PoseHRNet
from hrseg.task import LabelSpace, Normalisation, SegmentationClass
from hrseg.weights import families
from hrseg.weights.families import FAMILIES, Family
from hrseg.weights.source import Checkpoint, Source, read

log = logging.getLogger(__name__)

# What is built for each architecture, and where its number of outputs shows.
ARCHITECTURES: dict[str, type[nn.Module]] = {
    "hrnetv2": HRNetV2,
    "ocrnet": OCRNet,
    "c1": C1,
    "classifier": HRNetClassifier,
    "increased": IncreasedHRNet,
    "pose": PoseHRNet,
    "detection": HRNetV2p,
}
OUTPUTS = {
    "classes": ("segmentation_head.conv.weight", "segmentation_head.conv.bias", "classifier.weight", "classifier.bias"),
    "joints": ("head.weight", "head.bias"),
    "out_channels": ("neck.reduction.weight", "neck.reduction.bias"),
}
OUTPUT_OF = {"classifier": "classes", "hrnetv2": "classes", "ocrnet": "classes", "c1": "classes"}
OUTPUT_OF |= {"pose": "joints", "detection": "out_channels"}
WITH_ALIGN_CORNERS = ("hrnetv2", "ocrnet")

# The benchmarks whose classes are assumed where a file has as many outputs and no names.
KNOWN_CLASSES = {len(CITYSCAPES): ("Cityscapes", CITYSCAPES), len(ADE20K): ("ADE20K", ADE20K)}
SHOWN = 6  # names of a kind in a message
ENCODER = "encoder."


@dataclass(frozen=True)
class Report:
    """What became of each tensor of a file, by name; names are the model's, but for those that it does not have."""

    source: str
    matched: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)  # name in the file to name in the model
    dropped: dict[str, str] = field(default_factory=dict)  # in the file, left out on purpose: why
    filled: dict[str, str] = field(default_factory=dict)  # not in the file, and known all the same: why
    missing: list[str] = field(default_factory=list)  # in the model, not in the file
    unexpected: list[str] = field(default_factory=list)  # in the file, not in the model
    wrong_shape: dict[str, str] = field(default_factory=dict)  # what the shapes are
    other_classes: list[str] = field(default_factory=list)  # keep their start values: the model has other classes
    kept: list[str] = field(default_factory=list)  # keep their start values: the file has no head, or it was left out
    notes: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether every tensor of the file and of the model has its partner, or a reason to have none."""
        return not (self.missing or self.unexpected or self.wrong_shape)

    def __str__(self) -> str:
        total = len(self.matched) + len(self.filled) + len(self.missing) + len(self.wrong_shape)
        loaded = len(self.matched) + len(self.filled)
        parts = [f"{loaded} of {total + len(self.other_classes)} tensors from {self.source}"]
        if self.other_classes:
            parts.append(f"start values, because of other classes: {_some(self.other_classes)}")
        if self.kept:
            parts.append(f"{len(self.kept)} tensors of the head keep their start values: {_some(self.kept)}")
        for word, names in (("missing", self.missing), ("unexpected", self.unexpected)):
            if names:
                parts.append(f"{len(names)} {word}: {_some(names)}")
        if self.wrong_shape:
            parts.append(f"{len(self.wrong_shape)} of a wrong shape: {_some(_explained(self.wrong_shape))}")
        return "; ".join([*parts, *self.notes])

    def table(self, shown: int = SHOWN) -> str:
        """A line a kind, with the first `shown` names of each."""
        reasons = [f"{why} ({len(names)}): {_some(names, 2)}" for why, names in _by_reason(self.dropped).items()]
        filled = [f"{why} ({len(names)}): {_some(names, 2)}" for why, names in _by_reason(self.filled).items()]
        rows = {
            "matched": f"{len(self.matched)}",
            "renamed": f"{len(self.renamed)}",
            "dropped": f"{len(self.dropped)}" + "".join(f"\n{'':14}{reason}" for reason in reasons),
            "filled in": f"{len(self.filled)}" + "".join(f"\n{'':14}{reason}" for reason in filled),
            "missing": _counted(self.missing, shown),
            "unexpected": _counted(self.unexpected, shown),
            "wrong shape": _counted(_explained(self.wrong_shape), shown),
        }
        if self.kept or self.other_classes:
            rows["start values"] = _counted([*self.kept, *self.other_classes], shown)
        return "\n".join(f"  {name:<12}{row}" for name, row in rows.items())


def _explained(shapes: Mapping[str, str]) -> list[str]:
    return [f"{name} {why}" for name, why in shapes.items()]


def _by_reason(names: Mapping[str, str]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for name, why in names.items():
        reasons.setdefault(why, []).append(name)
    return reasons


def _some(names: Collection[str], shown: int = SHOWN) -> str:
    first = list(names)[:shown]
    return ", ".join(first) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _counted(names: Collection[str], shown: int) -> str:
    return f"{len(names)}" + (f": {_some(names, shown)}" if names else "")


@dataclass(frozen=True)
class Found:
    """What a checkpoint is: enough to build its model as it was at home.

    architecture: a name of ARCHITECTURES, an architecture of smp (hrseg's own checkpoints), or "encoder". outputs:
    classes, joints or channels. space: its classes by name; None where it segments nothing. questions: what the file
    cannot tell and was assumed.
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
    config: dict[str, Any] | None = None  # the settings in a checkpoint of hrseg
    report: Report = field(default_factory=lambda: Report(""))
    tensors: dict[str, Tensor] = field(default_factory=dict, repr=False)  # by the names of the model

    @property
    def variant(self) -> str:
        return _without_suffix(self.encoder)[0]

    @property
    def fusion(self) -> str:
        return _without_suffix(self.encoder)[1]

    def __str__(self) -> str:
        head = "none (an encoder)" if self.architecture == "encoder" else self.architecture
        what = f", {self.outputs} {OUTPUT_OF.get(self.architecture, 'classes')}" if self.outputs else ""
        names = ""
        if self.space is not None:
            names = f" ({', '.join(self.space.names[:3])}, ...)"
        lines = [
            f"family         {self.family.name}: {self.family.about}",
            f"encoder        {self.encoder} (fusion {self.fusion})",
            f"head           {head}{what}{names}",
            f"align_corners  {self.align_corners}",
            f"normalisation  mean {_short(self.normalisation.mean)}, std {_short(self.normalisation.std)}",
            f"tensors        {self.report}",
            self.report.table(),
            *(f"to decide      {question}" for question in self.questions),
        ]
        return "\n".join(lines)


def _short(values: Collection[float]) -> str:
    return " ".join(f"{v:g}" for v in values)


def _without_suffix(encoder: str) -> tuple[str, str]:
    """Variant and fusion of an encoder's name."""
    name = encoder.removeprefix("hrnetv2_")
    for suffix, options in SUFFIXES.items():
        if suffix and name.endswith(suffix):
            return name.removesuffix(suffix), options["fusion"]
    return name, "bilinear"


def load(model: nn.Module, source: Source, *, family: str | None = None, encoder_only: bool = False) -> Report:
    """Copy a checkpoint of any family into a model: all of it, or a refusal.

    source: as in `read`; "#encoder" at its end means encoder_only. family: a name of FAMILIES where the names of the
    tensors mislead. encoder_only: leave the file's head out. A head of other classes keeps its start values, and so
    does any head if the file has none; the report names them. Raises WeightsError, naming the tensors, where the
    encoder does not fit whole or the file's head is another than the model's.
    """
    if isinstance(source, str) and source.endswith("#encoder"):
        source, encoder_only = source.removesuffix("#encoder"), True
    checkpoint = read(source)
    own = model.state_dict()
    chosen, inside, outside = _family_of(checkpoint, family, own)
    tensors, report = fit(own, checkpoint, chosen, inside, outside, encoder_only=encoder_only, model=model)
    if not report.fits or not tensors:
        raise WeightsError(
            checkpoint.source,
            f"does not fit the model: {report}.",
            "Choose the architecture and encoder that these weights are of (tools/convert.py FILE --inspect names them)"
            + (", or load the encoder alone: encoder_only=True, in YAML FILE#encoder." if not encoder_only else "."),
        )
    model.load_state_dict({**own, **tensors})
    return report


def inspect(
    source: Source, *, family: str | None = None, align_corners: bool | None = None, encoder_only: bool = False
) -> Found:
    """What a checkpoint is, by the names and shapes of its tensors, never by its own name.

    align_corners: what the person knows where the file cannot tell. Its report may tell that the file is not whole;
    `build_model` then refuses it. Raises WeightsError where there is no HRNet in it.
    """
    checkpoint = read(source)
    chosen, inside, outside = _family_of(checkpoint, family)
    if "config" in checkpoint.beside and "classes" in checkpoint.beside:
        found = _from_settings(checkpoint)
    else:
        if chosen is None:
            raise WeightsError(checkpoint.source, "holds no HRNet that hrseg knows.", _first_names(checkpoint))
        found = _from_names(checkpoint, chosen, inside, align_corners, encoder_only)
    with torch.device("meta"):
        model = _make(found)
    tensors, report = fit(
        model.state_dict(), checkpoint, chosen, inside, outside, encoder_only=encoder_only, model=model, strict=True
    )
    return replace(found, tensors=tensors, report=report)


def build_model(found: Found | Source) -> nn.Module:
    """The model of a checkpoint, with its weights and the settings of its home, in evaluation mode on the CPU.

    Raises WeightsError, naming the tensors, where any has no partner.
    """
    if not isinstance(found, Found):
        found = inspect(found)
    if not found.report.fits:
        raise WeightsError(found.source, f"is not whole: {found.report}.", "Is it cut short, or edited?")
    with torch.device("meta"):
        model = _make(found)
    model.load_state_dict(found.tensors, assign=True)
    if found.bn_momentum is not None:
        set_bn_momentum(model, found.bn_momentum)
    return model.eval()


def _make(found: Found) -> nn.Module:
    if found.architecture == "encoder":
        return smp.encoders.get_encoder(found.encoder, in_channels=found.in_channels, depth=5, weights=None)
    known: Mapping[str, type[nn.Module]] = {**models.ARCHITECTURES, **ARCHITECTURES}
    if found.architecture not in known:
        raise WeightsError(found.source, f"no architecture '{found.architecture}'.", nearest(found.architecture, known))
    options = dict(found.options)
    if found.architecture != "increased" and found.outputs is not None:
        options[OUTPUT_OF.get(found.architecture, "classes")] = found.outputs
    if found.architecture in WITH_ALIGN_CORNERS:
        options["align_corners"] = found.align_corners
    return known[found.architecture](encoder_name=found.encoder, in_channels=found.in_channels, **options)


def _family_of(
    checkpoint: Checkpoint, name: str | None, own: Collection[str] = ()
) -> tuple[Family | None, dict[str, str], list[str]]:
    """The family; the network's names without wrappers, by the names in the file; the names outside the network.

    The family is None where the names are those of `own`, whatever network that is.
    """
    inside, outside, roots = families.unwrapped(checkpoint.tensors)
    if len(roots) > 1:
        raise WeightsError(
            checkpoint.source,
            f"holds {len(roots)} networks, under {', '.join(repr(r) for r in roots)}.",
            "Save the one that you mean into a file of its own.",
        )
    bare = set(inside.values())
    if name is not None:
        name = families.ALIASES.get(name, name)
        if name not in FAMILIES:
            raise WeightsError(checkpoint.source, f"no family '{name}'.", nearest(name, FAMILIES))
        return FAMILIES[name], inside, outside
    found = families.recognise(bare)
    spelled_alike = found is None or found.trunk.startswith(ENCODER)
    encoder = [key for key in own if key.startswith(ENCODER)] or list(own)
    if own and spelled_alike and all(key in bare or key.endswith("num_batches_tracked") for key in encoder):
        return None, inside, outside
    if own and found is None:
        raise WeightsError(
            checkpoint.source, "holds none of the model's tensors and no HRNet.", _first_names(checkpoint)
        )
    return found, inside, outside


def _first_names(checkpoint: Checkpoint) -> str:
    return f"Its first names: {_some(checkpoint.tensors, 4)}."


def renamed(family: Family, inside: Mapping[str, str], own: Collection[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Names in the file to names in hrseg, and names in the file that are left out on purpose, with the reason."""
    head = families.architecture(family, [family.spell(b) if family.spell else b for b in inside.values()])
    table = sorted(family.names(head), key=lambda row: -len(row[0]))
    patterns = [(re.compile(pattern), why) for pattern, why in family.dropped]
    names, dropped = {}, {}
    for key, bare in inside.items():
        reason = next((why for pattern, why in patterns if pattern.search(bare)), None)
        if reason is not None:
            dropped[key] = reason
            continue
        spelled = family.spell(bare) if family.spell else bare
        there, here = next(((a, b) for a, b in table if spelled.startswith(a)), ("", ""))
        name = here + spelled.removeprefix(there)
        classifier = spelled.startswith(families.CLASSIFIER_HEAD) and family.name == "imagenet"
        if classifier and not any(k.startswith(families.CLASSIFIER_HEAD) for k in own):
            dropped[key] = "of the ImageNet classifier"
        else:
            names[key] = name
    return names, dropped


def fit(
    own: Mapping[str, Tensor],
    checkpoint: Checkpoint,
    family: Family | None,
    inside: Mapping[str, str],
    outside: Collection[str],
    *,
    encoder_only: bool,
    model: nn.Module,
    strict: bool = False,
) -> tuple[dict[str, Tensor], Report]:
    """The tensors of a file by the names of the model, and what became of each.

    family: None where the file's names are the model's. strict: heads of other classes do not pass.
    """
    bare_encoder = isinstance(model, HRNet)
    if family is None:
        names, dropped = dict(inside), {}
    else:
        names, dropped = renamed(family, inside, own)
    if bare_encoder and family is not None:
        for key in [k for k, name in names.items() if not name.startswith(ENCODER)]:
            dropped[key] = "of a head; the model is an encoder"
            del names[key]
        names = {key: name.removeprefix(ENCODER) for key, name in names.items()}
    for key in outside:
        reason = next((why for p, why in (family.dropped if family else ()) if re.search(p, key)), None)
        dropped[key] = reason or "outside the network"

    def of_encoder(name: str) -> bool:
        return bare_encoder or name.startswith(ENCODER)

    wanted = {name: tensor for name, tensor in own.items() if not encoder_only or of_encoder(name)}
    if encoder_only:
        for key in [k for k, name in names.items() if not of_encoder(name)]:
            dropped[key] = "of the head, left out as asked"
            del names[key]
    for key in [k for k, name in names.items() if name not in own and name.startswith(_not_needed(model))]:
        dropped[key] = "leads to features that the model does without"
        del names[key]

    by_name = {name: checkpoint.tensors[key] for key, name in names.items()}
    filled = {}
    for name, tensor in wanted.items():
        if name in by_name:
            continue
        if name.endswith("num_batches_tracked") and f"{name.rpartition('.')[0]}.running_mean" in by_name:
            by_name[name], filled[name] = torch.zeros((), dtype=torch.int64), "0: older files do not count batches"
        elif family is not None and family.no_bias and name in _FOLDABLE and f"{name[:-4]}weight" in by_name:
            by_name[name] = torch.zeros(tensor.shape)
            filled[name] = "0: the convolution has no bias there"

    file_has_head = any(not of_encoder(name) for name in names.values())
    has_head = any(not of_encoder(name) for name in wanted)
    wrong = {n: t for n, t in wanted.items() if n in by_name and by_name[n].shape != t.shape}
    missing = [n for n in wanted if n not in by_name]
    kept: list[str] = [] if not encoder_only else [n for n in own if n not in wanted]
    if not strict and has_head and not file_has_head:
        kept = [n for n in missing if not of_encoder(n)]
        missing = [n for n in missing if of_encoder(n)]
    other_classes = [] if strict else _of_other_classes(wrong, by_name, of_encoder)
    report = Report(
        checkpoint.source,
        matched=[n for n in wanted if n in by_name and n not in wrong and n not in filled],
        renamed={key: name for key, name in names.items() if key != name and name in wanted},
        dropped=dropped,
        filled=filled,
        missing=missing,
        unexpected=[key for key, name in names.items() if name not in wanted],
        wrong_shape={
            n: f"{tuple(by_name[n].shape)}, the model's {tuple(t.shape)}"
            for n, t in wrong.items()
            if n not in other_classes
        },
        other_classes=other_classes,
        kept=kept,
        notes=_notes(family, model),
    )
    tensors = {n: by_name[n].to(t.dtype) for n, t in wanted.items() if n in by_name and n not in wrong}
    if family is not None and family.absolute_gamma:
        # InPlaceABN: gamma of each batch norm, the only weights with one dimension.
        tensors = {n: t.abs() + 1e-5 if n.endswith(".weight") and t.ndim == 1 else t for n, t in tensors.items()}
    return tensors, report


_FOLDABLE = {bias for pairs in families.BIAS_BEFORE_NORM.values() for bias, _ in pairs}


def _not_needed(model: nn.Module) -> tuple[str, ...]:
    """How the names of tensors begin that a complete checkpoint has and a shallower encoder does without."""
    encoder = model if isinstance(model, HRNet) else getattr(model, "encoder", None)
    if not isinstance(encoder, HRNet):
        return ("\0",)
    prefix = "" if encoder is model else ENCODER
    return tuple(
        prefix + name for name in encoder._absent() if name.startswith(("conv", "bn", "layer", "tran", "stage"))
    )


def _of_other_classes(wrong: Mapping[str, Tensor], by_name: Mapping[str, Tensor], of_encoder: Any) -> list[str]:
    """The tensors of a head whose shapes differ in their first dimension alone, all by the same two numbers."""
    heads = [n for n, t in wrong.items() if not of_encoder(n) and by_name[n].shape[1:] == t.shape[1:] and t.ndim]
    pairs = {(by_name[n].shape[0], wrong[n].shape[0]) for n in heads}
    return heads if len(pairs) == 1 else []


def _notes(family: Family | None, model: nn.Module) -> list[str]:
    encoder = model if isinstance(model, HRNet) else getattr(model, "encoder", None)
    fusion = getattr(encoder, "fusion", None)
    if family is None or fusion is None or family.name in ("hrseg", "trunk") or family.fusion == fusion:
        return []
    if family.question == families.ALIGN_QUESTION:
        return [f"the model fuses by {fusion}, as branch HRNet-OCR does"] if fusion == "bilinear_ac" else []
    recipe = ", as the reference segmentation recipe does" if family.name == "imagenet" else ""
    return [f"its home fuses by {family.fusion}, the model by {fusion}{recipe}: features move by 5 to 14 %"]


def _from_names(
    checkpoint: Checkpoint, family: Family, inside: Mapping[str, str], align_corners: bool | None, encoder_only: bool
) -> Found:
    head = families.architecture(family, [family.spell(b) if family.spell else b for b in inside.values()])
    names, _ = renamed(family, inside, families.CLASSIFIER_HEAD)
    shapes = {name: checkpoint.tensors[key].shape for key, name in names.items()}
    encoder = f"hrnetv2_{_variant(checkpoint, shapes)}"
    attention = _attention(shapes)
    architecture = "encoder" if encoder_only else head
    questions = [family.question] if family.question and not (attention and family.name == "trunk") else []
    fusion = family.fusion
    aligned = False
    if family.question == families.ALIGN_QUESTION:
        aligned = head == "ocrnet" if align_corners is None else align_corners
        questions = [] if align_corners is not None else [family.question.format(assumed=aligned)]
        fusion = "bilinear_ac" if aligned else "bilinear"
    elif align_corners is not None and family.fusion != "nearest":
        aligned, fusion = align_corners, "bilinear_ac" if align_corners else "bilinear"
    if attention:
        encoder += attention
    else:
        encoder += next(suffix for suffix, options in SUFFIXES.items() if options == {"fusion": fusion})
    kind = OUTPUT_OF.get(architecture)
    outputs = None
    if kind is not None:
        outputs = next((shapes[n][0] for n in OUTPUTS[kind] if n in shapes), 1)
    space, assumed = _label_space(checkpoint, architecture, outputs)
    if assumed:
        questions.append(assumed)
    first = shapes.get(f"{ENCODER}conv1.weight")
    return Found(
        checkpoint.source,
        family,
        architecture,
        encoder,
        outputs,
        in_channels=first[1] if first is not None and len(first) == 4 else 3,
        align_corners=aligned,
        bn_momentum=0.1 if head == "ocrnet" else family.bn_momentum,
        normalisation=family.normalisation,
        space=space,
        questions=tuple(questions),
    )


def _variant(checkpoint: Checkpoint, shapes: Mapping[str, torch.Size]) -> str:
    """The row of the table of variants, by width and, for the two of width 18, by which names there are."""
    widths: Counter[float] = Counter()
    for name, shape in shapes.items():
        match = re.search(r"stage\d\.\d+\.branches\.(\d)\.\d+\.conv1\.weight$", name)
        if match and len(shape) == 4:
            widths[shape[0] / 2 ** int(match[1])] += 1
    width = widths.most_common(1)[0][0] if widths else None
    candidates = [name for name, variant in VARIANTS.items() if variant.width == width]
    if not candidates:
        raise WeightsError(checkpoint.source, f"holds an HRNet of width {width}.", f"Known: {', '.join(VARIANTS)}.")
    names = {name.removeprefix(ENCODER) for name in shapes if name.startswith(ENCODER)}
    return min(candidates, key=lambda candidate: len(_names_of(candidate) ^ names))


@functools.cache
def _names_of(variant: str) -> frozenset[str]:
    with torch.device("meta"):
        return frozenset(HRNet(variant).state_dict())


def _attention(shapes: Mapping[str, torch.Size]) -> str:
    """The end of the encoder's name where its blocks carry polarized self-attention."""
    if any(".deattn.conv_up.0." in name for name in shapes):
        return "_psa_s"
    return "_psa_p" if any(".deattn." in name for name in shapes) else ""


def _label_space(checkpoint: Checkpoint, architecture: str, outputs: int | None) -> tuple[LabelSpace | None, str]:
    """Names and colours of the classes: as in the file (mmsegmentation), else a benchmark's of as many, else numbers."""
    if OUTPUT_OF.get(architecture) != "classes" or architecture == "classifier" or outputs is None:
        return None, ""
    meta = checkpoint.beside.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    inner = meta.get("dataset_meta")
    inner = inner if isinstance(inner, Mapping) else {}
    names = inner.get("classes") or meta.get("CLASSES")
    if isinstance(names, list | tuple) and len(names) == outputs:
        palette = inner.get("palette") or meta.get("PALETTE") or []
        colors = [tuple(int(v) for v in c) for c in palette] if len(palette) == outputs else _grays(outputs)
        return LabelSpace(tuple(SegmentationClass(str(n), c) for n, c in zip(names, colors, strict=True))), ""
    if outputs in KNOWN_CLASSES:
        benchmark, classes = KNOWN_CLASSES[outputs]
        return LabelSpace(classes), f"The {outputs} classes have no names in the file; assumed: those of {benchmark}."
    numbered = [SegmentationClass(f"class {i}", color) for i, color in enumerate(_grays(outputs))]
    return LabelSpace(tuple(numbered)), f"The {outputs} classes have no names in the file; they are numbered."


def _grays(count: int) -> list[tuple[int, int, int]]:
    return [(v, v, v) for v in (round(255 * (i + 1) / count) for i in range(count))]


def _from_settings(checkpoint: Checkpoint) -> Found:
    """A checkpoint of hrseg carries its own settings."""
    beside = checkpoint.beside
    settings = dict(beside["config"]["model"])
    arch = str(settings["arch"])
    if ":" in arch:
        raise WeightsError(
            checkpoint.source, f"its architecture is code outside hrseg, {arch}.", "Build it and `load`."
        )
    normalisation = Normalisation.from_plain(beside["normalisation"])
    space = LabelSpace.from_plain(beside) if beside["classes"] is not None else None
    known = (
        "arch",
        "encoder",
        "encoder_weights",
        "weights",
        "init",
        "bn_momentum",
        "sync_bn",
        "align_corners",
        "outputs",
    )
    return Found(
        checkpoint.source,
        FAMILIES["hrseg"],
        arch,
        str(settings["encoder"]),
        space.outputs if space is not None else settings.get("outputs"),
        in_channels=normalisation.channels,
        align_corners=bool(settings.get("align_corners", False)),
        bn_momentum=settings.get("bn_momentum"),
        normalisation=normalisation,
        space=space,
        options={key: value for key, value in settings.items() if key not in known},
        config=dict(beside["config"]),
    )
