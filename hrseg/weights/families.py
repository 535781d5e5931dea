"""The families of HRNet checkpoints: how each names its tensors, and what its network does that names cannot show.

A family's names become hrseg's by prefixes: the trunk's get `encoder.`, a head's go by the table of its architecture.
Read backwards, the tables save a model for its family's own code.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from hrseg.models import c1, classifier, detection, hrnetv2, ocrnet, pose
from hrseg.task import Normalisation
from hrseg.weights import paddle

Names = tuple[tuple[str, str], ...]  # prefixes of a tensor's name: in the family's code, in hrseg

MMSEG_FCN: Names = (
    ("decode_head.convs.0.conv.", "decoder.conv."),
    ("decode_head.convs.0.bn.", "decoder.bn."),
    ("decode_head.conv_seg.", "segmentation_head.conv."),
)
MMSEG_OCR: Names = (
    ("decode_head.0.convs.0.conv.", "aux_head.0."),
    ("decode_head.0.convs.0.bn.", "aux_head.1."),
    ("decode_head.0.conv_seg.", "aux_head.3."),
    ("decode_head.1.bottleneck.conv.", "decoder.pixel.0."),
    ("decode_head.1.bottleneck.bn.", "decoder.pixel.1."),
    ("decode_head.1.object_context_block.query_project.0.conv.", "decoder.query.0."),
    ("decode_head.1.object_context_block.query_project.0.bn.", "decoder.query.1."),
    ("decode_head.1.object_context_block.query_project.1.conv.", "decoder.query.3."),
    ("decode_head.1.object_context_block.query_project.1.bn.", "decoder.query.4."),
    ("decode_head.1.object_context_block.key_project.0.conv.", "decoder.key.0."),
    ("decode_head.1.object_context_block.key_project.0.bn.", "decoder.key.1."),
    ("decode_head.1.object_context_block.key_project.1.conv.", "decoder.key.3."),
    ("decode_head.1.object_context_block.key_project.1.bn.", "decoder.key.4."),
    ("decode_head.1.object_context_block.value_project.conv.", "decoder.value.0."),
    ("decode_head.1.object_context_block.value_project.bn.", "decoder.value.1."),
    ("decode_head.1.object_context_block.out_project.conv.", "decoder.context.0."),
    ("decode_head.1.object_context_block.out_project.bn.", "decoder.context.1."),
    ("decode_head.1.object_context_block.bottleneck.conv.", "decoder.mix.0."),
    ("decode_head.1.object_context_block.bottleneck.bn.", "decoder.mix.1."),
    ("decode_head.1.conv_seg.", "segmentation_head.conv."),
)
PSA_OCR: Names = (
    # Two batch norms are nested one deeper than in the reference.
    *((f"ocr.{t}", h) for t, h in ocrnet.REFERENCE_NAMES if not t.startswith(("aux_head.", "conv3x3_ocr.1."))),
    ("ocr.conv3x3_ocr.1.0.", "decoder.pixel.1."),
    ("ocr.aux_head.0.", "aux_head.0."),
    ("ocr.aux_head.1.0.", "aux_head.1."),
    ("ocr.aux_head.2.", "aux_head.3."),
)
MMDET: Names = (
    ("neck.reduction_conv.conv.", "neck.reduction."),
    *((f"neck.fpn_convs.{i}.conv.", f"neck.levels.{i}.") for i in range(detection.LEVELS)),
)
DETECTION: Names = tuple(row for row in detection.REFERENCE_NAMES if row[0].startswith("neck."))


def same_names(names: Names) -> Names:
    return tuple((here, here) for _, here in names)


# A convolution's bias and the running mean after it. Where a family has no such bias it is 0, and a bias can be moved
# into the mean: (x + bias) - mean = x - (mean - bias).
BIAS_BEFORE_NORM = {
    "hrnetv2": (("decoder.conv.bias", "decoder.bn.running_mean"),),
    "ocrnet": (
        ("aux_head.0.bias", "aux_head.1.running_mean"),
        ("decoder.pixel.0.bias", "decoder.pixel.1.running_mean"),
    ),
    "classifier": (
        *((f"downsamp_modules.{i}.0.bias", f"downsamp_modules.{i}.1.running_mean") for i in range(3)),
        ("final_layer.0.bias", "final_layer.1.running_mean"),
    ),
}

ALIGN_QUESTION = (
    "Interpolation is not in the file. Branch pytorch-v1.1 uses align_corners False; branch HRNet-OCR True, except for "
    "its plain (not OCR) Cityscapes, PASCAL-Context and LIP settings. Assumed: {assumed}. If you know better, say "
    "--align-corners true|false; if you do not, score both on a few labelled images: the wrong one loses mIoU."
)


@dataclass(frozen=True)
class Family:
    """A project whose checkpoints are known.

    trunk: the prefix of the trunk's names. wrapper: the prefix of all names in its files. wrap: puts the tensors into
    the structure of its files. heads: a table per architecture. dropped: patterns of names that are left out on
    purpose, with the reason. fusions: of its networks; where there are two, the names cannot tell which. bias: whether
    its heads' convolutions before a batch norm have one. absolute_gamma: its batch norms multiply by abs(gamma) + 1e-5.
    spell: turns its names into the reference's, where prefixes are not enough. question: what the names cannot tell
    and the user has to answer. saved: whether `save` writes for it.
    """

    name: str
    about: str
    heads: Mapping[str, Names]
    trunk: str = ""
    wrapper: str = ""
    wrap: Callable[[dict], dict] = field(default=dict)
    dropped: Names = ()
    fusions: tuple[str, ...] = ("bilinear",)
    bn_momentum: float = 0.1
    normalisation: Normalisation = field(default_factory=Normalisation)
    bias: Literal["kept", "never", "sometimes"] = "kept"
    absolute_gamma: bool = False
    spell: Callable[[str], str] | None = None
    question: str = ""
    saved: bool = True

    @property
    def fusion(self) -> str:
        return self.fusions[0]

    def spelled(self, name: str) -> str:
        return self.spell(name) if self.spell else name

    def reason_to_drop(self, name: str) -> str:
        """Why a name is left out on purpose; "" if it is not."""
        return next((why for pattern, why in self.dropped if re.search(pattern, name)), "")

    def names(self, architecture: str) -> Names:
        """The table of an architecture, the trunk last: every name begins with its prefix, which may be empty."""
        return (*self.heads.get(architecture, ()), (self.trunk, "encoder."))


COUNTERS = (r"\._tmp_running_(mean|var)$|\._running_iter$", "a buffer of its batch norm that evaluation does not read")
DETECTOR_HEADS = (r"^(rpn|bbox|roi|mask|keypoint)_head\.|^(bbox|mask)_roi_extractor\.", "the detector's own heads")
TRAINING_LOSS = (r"^(loss|criterion)\.", "of the training loss")

OFFICIAL_HEADS = {"hrnetv2": hrnetv2.REFERENCE_NAMES, "ocrnet": ocrnet.REFERENCE_NAMES}

FAMILIES = {
    family.name: family
    for family in (
        Family(
            "hrseg",
            "hrseg",
            heads={
                "hrnetv2": same_names(hrnetv2.REFERENCE_NAMES),
                "ocrnet": same_names(ocrnet.REFERENCE_NAMES),
                "c1": same_names(c1.REFERENCE_NAMES),
                "classifier": same_names(classifier.REFERENCE_NAMES),
                "increased": same_names(classifier.INCREASE_NAMES),
                "pose": same_names(pose.REFERENCE_NAMES),
                "detection": same_names(DETECTION),
            },
            trunk="encoder.",
        ),
        Family(
            "official",
            "HRNet-Semantic-Segmentation, branches pytorch-v1.1 and HRNet-OCR",
            heads=OFFICIAL_HEADS,
            wrapper="model.",
            dropped=(TRAINING_LOSS,),
            bn_momentum=0.01,
            fusions=("bilinear", "bilinear_ac"),
        ),
        Family(
            "official_torch04",
            "HRNet-Semantic-Segmentation with InPlaceABN (torch 0.4.1): gamma counts as abs(gamma) + 1e-5",
            heads=OFFICIAL_HEADS,
            wrapper="model.",
            dropped=(TRAINING_LOSS,),
            bn_momentum=0.01,
            absolute_gamma=True,
            fusions=("bilinear", "bilinear_ac"),
            saved=False,
        ),
        Family(
            "imagenet",
            "HRNet-Image-Classification, timm, open-mmlab's msra/",
            heads={"classifier": classifier.REFERENCE_NAMES, "increased": classifier.INCREASE_NAMES},
            fusions=("nearest",),
            bias="sometimes",  # not those of PaddleClas (ssld)
        ),
        Family(
            "mmseg",
            "mmsegmentation 0.x and 1.x",
            heads={"hrnetv2": MMSEG_FCN, "ocrnet": MMSEG_OCR},
            trunk="backbone.",
            wrap=lambda tensors: {"meta": {}, "state_dict": tensors},
            dropped=((r"^auxiliary_head\.", "a head that only trains"),),
            bias="never",
        ),
        Family(
            "csail",
            "CSAILVision/semantic-segmentation-pytorch, encoder and decoder in two files",
            heads={"c1": c1.REFERENCE_NAMES},
            dropped=(COUNTERS,),
        ),
        Family(
            "pose",
            "deep-high-resolution-net (HRNetV1)",
            heads={"pose": pose.REFERENCE_NAMES},
            fusions=("nearest",),
        ),
        Family(
            "detection",
            "HRNet-Object-Detection (HRNetV2p)",
            heads={"detection": DETECTION},
            trunk="backbone.",
            wrap=lambda tensors: {"meta": {}, "state_dict": tensors},
            dropped=(DETECTOR_HEADS,),
            fusions=("nearest",),
        ),
        Family(
            "mmdet",
            "mmdetection (HRNetV2p)",
            heads={"detection": MMDET},
            trunk="backbone.",
            wrap=lambda tensors: {"meta": {}, "state_dict": tensors},
            dropped=(DETECTOR_HEADS,),
            fusions=("nearest",),
        ),
        Family(
            "psa",
            "PSA, and NVIDIA's hierarchical attention over scales (of which one scale is computed)",
            heads={"ocrnet": PSA_OCR},
            trunk="backbone.",
            wrapper="module.",
            wrap=lambda tensors: {"state_dict": tensors},
            dropped=(TRAINING_LOSS, (r"^scale_attn\.", "attention between scales: hrseg computes one scale")),
        ),
        Family(
            "paddleseg",
            "PaddleSeg (.pdparams), which pads its stride-2 convolutions on one side only: not exact",
            heads=OFFICIAL_HEADS,
            normalisation=Normalisation(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
            bias="sometimes",
            spell=paddle.reference_name,
            question="PaddleSeg pads stride-2 convolutions only on the right and below (padding='same'), torch on all "
            "sides: the outputs differ; docs/weights.md says by how much. Fine-tune, or score before use.",
            saved=False,
        ),
        Family(
            "trunk",
            "an HRNet without a head, of unknown origin",
            heads={},
            question="How the fusion interpolates is not in the file: nearest in ImageNet's, pose and detection "
            "networks (--family imagenet), bilinear in segmentation networks. Assumed: bilinear.",
            saved=False,
        ),
        Family(
            "smp",
            "segmentation_models_pytorch",
            heads={},
            trunk="encoder.model.",
            fusions=("nearest",),
            dropped=((r"^incre_modules\.|^encoder\.model\.incre_modules\.", "of the ImageNet classifier"),),
            saved=False,
        ),
    )
}
# Other names of families, in `--to` and `family=`.
ALIASES = {"timm": "imagenet", "mmsegmentation": "mmseg", "torch04": "official_torch04", "nvidia": "psa"}

# Prefixes of the heads of ImageNet checkpoints; dropped on purpose where a model has no such head.
CLASSIFIER_HEAD = tuple(there for there, _ in classifier.REFERENCE_NAMES)

# DataParallel's, torch.compile's, FSDP's, that of recomputed activations: anywhere in a name.
WRAPPERS = re.compile(
    r"(?:(?<=\.)|^)(?:module|_orig_mod|_fsdp_wrapped_module|_forward_module|_checkpoint_wrapped_module)\."
)
# Counters of wrappers that average weights: torch's AveragedModel, mmengine, ema_pytorch, torchmetrics.
AVERAGE_COUNTERS = re.compile(r"(^|\.)(n_averaged|num_updates|updates|initted|step|steps|decay)$")
AVERAGED_ROOT = re.compile(r"(^|\.)(\w*ema\w*|\w*averaged?\w*|\w*avg\w*|\w*swa\w*)\.$")
TRUNK_KEY = re.compile(r"(stage[234]\.\d+\.(branches|fuse_layers)\.\d|st[234]\.stage_st[234]_\d+\.)")
TRUNK_PREFIXES = ("encoder.model.", "backbone.", "encoder.")


def strip_wrappers(keys: Collection[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """Names without their wrappers: (name in the file to bare name, names outside the network, prefixes).

    prefixes: one per network; more than one where the file holds several. A running average comes before the network
    that it averages.
    """
    counters = [key for key in keys if AVERAGE_COUNTERS.search(key)]
    plain = {key: WRAPPERS.sub("", key) for key in keys if key not in counters}
    prefixes = Counter(match.string[: match.start()] for key in plain.values() if (match := TRUNK_KEY.search(key)))
    roots = []
    for prefix in prefixes:
        inner = next((p for p in TRUNK_PREFIXES if prefix == p or prefix.endswith("." + p)), "")
        roots.append(prefix.removesuffix(inner))
    roots = list(dict.fromkeys(roots))
    averaged = [root for root in roots if AVERAGED_ROOT.search(root)]
    if len(roots) == 2 and len(averaged) == 1:
        roots = averaged
    if len(roots) != 1:
        return plain, counters, roots
    inside = {key: bare.removeprefix(roots[0]) for key, bare in plain.items() if bare.startswith(roots[0])}
    return inside, [*(key for key in plain if key not in inside), *counters], roots


def family_of_names(keys: Collection[str]) -> Family | None:
    """The family that writes such names; None where there is no HRNet among them."""

    def any_starts(*prefixes: str) -> bool:
        return any(key.startswith(prefixes) for key in keys)

    def any_holds(*parts: str) -> bool:
        return any(part in key for key in keys for part in parts)

    if any_holds("_batch_norm._mean"):
        return FAMILIES["paddleseg"]
    if any_starts("encoder.model.stage"):
        return FAMILIES["smp"]
    if any_starts("encoder.stage"):
        return FAMILIES["hrseg"]
    if any_starts("backbone.stage"):
        if any_starts("ocr."):
            return FAMILIES["psa"]
        if any_starts("neck.fpn_convs.", "neck.reduction_conv.conv."):
            return FAMILIES["mmdet"]
        return FAMILIES["detection" if any_starts("neck.") else "mmseg"]
    if any_starts("conv_last.", "cbr.") or any_holds("._tmp_running_mean"):
        return FAMILIES["csail"]
    if any_starts("incre_modules."):
        return FAMILIES["imagenet"]
    if any_starts("last_layer.", "cls_head.", "aux_head."):
        # torch's batch norm counts its batches since 0.4.1; InPlaceABN never did.
        return FAMILIES["official" if any_holds("num_batches_tracked") else "official_torch04"]
    if any_starts("final_layer."):
        return FAMILIES["pose"]
    return FAMILIES["trunk"] if any_starts("stage") else None


def architecture_of_names(family: Family, names: Collection[str]) -> str:
    """The architecture with the most tensors among a file's names; "encoder" where there is no head."""
    counts = {
        head: sum(name.startswith(tuple(there for there, _ in table)) for name in names)
        for head, table in family.heads.items()
    }
    best = max(counts, key=lambda head: (counts[head], -len(family.heads[head])), default=None)
    return best if best is not None and counts[best] else "encoder"
