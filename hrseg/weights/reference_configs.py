"""Translates settings of the reference segmentation code (its yacs YAML, complete or partial) to settings of hrseg.

Source: HRNet-Semantic-Segmentation, lib/config/default.py and tools/train.py of its branches. What a file leaves out
takes that code's default; where its branches differ, a note says which was assumed.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hrseg import config as settings
from hrseg.data.cityscapes import CLASS_WEIGHTS
from hrseg.errors import ConfigError
from hrseg.models.hrnet import VARIANTS

DEFAULTS: dict[str, Any] = {
    "GPUS": [0],
    "WORKERS": 4,
    "DATASET.DATASET": "cityscapes",
    "DATASET.ROOT": "",
    "DATASET.TRAIN_SET": "list/cityscapes/train.lst",
    "DATASET.TEST_SET": "list/cityscapes/val.lst",
    "DATASET.NUM_CLASSES": 19,
    "MODEL.NAME": "seg_hrnet",
    "MODEL.PRETRAINED": "",
    "LOSS.USE_OHEM": False,
    "LOSS.OHEMTHRES": 0.9,
    "LOSS.OHEMKEEP": 100000,
    "LOSS.BALANCE_WEIGHTS": [1],
    "TRAIN.IMAGE_SIZE": [1024, 512],
    "TRAIN.BASE_SIZE": 2048,
    "TRAIN.FLIP": True,
    "TRAIN.MULTI_SCALE": True,
    "TRAIN.SCALE_FACTOR": 16,
    "TRAIN.LR": 0.01,
    "TRAIN.MOMENTUM": 0.9,
    "TRAIN.WD": 0.0001,
    "TRAIN.NESTEROV": False,
    "TRAIN.OPTIMIZER": "sgd",
    "TRAIN.END_EPOCH": 484,
    "TRAIN.BATCH_SIZE_PER_GPU": 32,
    "TRAIN.NONBACKBONE_KEYWORDS": [],
    "TRAIN.NONBACKBONE_MULT": 10,
    "TRAIN.IGNORE_LABEL": -1,
    "TEST.FLIP_TEST": False,
    "TEST.MULTI_SCALE": False,
    "TEST.SCALE_LIST": [1],
    "TEST.BASE_SIZE": 2048,
}
# Keys that the reference code accepts but never uses, and what happens instead.
DEAD = {
    "AUTO_RESUME": "nothing reads it; TRAIN.RESUME decides",
    "RANK": "nothing reads it",
    "LOSS.CLASS_BALANCE": "nothing reads it; the Cityscapes class weights are always on",
    "TRAIN.LR_FACTOR": "nothing reads it; the schedule is always poly",
    "TRAIN.LR_STEP": "nothing reads it; the schedule is always poly",
    "TEST.CENTER_CROP_TEST": "nothing reads it",
    "DEBUG": "nothing reads it",
    "MODEL.EXTRA.STAGE1.NUM_MODULES": "stage 1 is one row of bottlenecks whatever it says",
    "MODEL.EXTRA.STAGE1.NUM_BRANCHES": "stage 1 has one stream whatever it says",
}
# Keys that have an effect there but no setting here, with the reason.
WITHOUT_COUNTERPART = {
    "CUDNN": "run.deterministic chooses",
    "LOG_DIR": "everything of a run lies in its folder, run.dir",
    "OUTPUT_DIR": "everything of a run lies in its folder, run.dir",
    "PIN_MEMORY": "chosen by the device",
    "PRINT_FREQ": "train.log_every counts the same, iterations",
    "TRAIN.BEGIN_EPOCH": "--resume knows where a run ended",
    "TRAIN.DOWNSAMPLERATE": "labels keep their size",
    "TRAIN.EXTRA_EPOCH": "continue on trainval by model.weights and a second settings file",
    "TRAIN.EXTRA_LR": "continue on trainval by model.weights and a second settings file",
    "TRAIN.NUM_SAMPLES": "an epoch is the whole set",
    "TRAIN.RANDOM_BRIGHTNESS": "augment.jitter: {brightness: ...} multiplies, it does not shift",
    "TRAIN.RANDOM_BRIGHTNESS_SHIFT_VALUE": "augment.jitter: {brightness: ...} multiplies, it does not shift",
    "TRAIN.FREEZE_LAYERS": "train.freeze names modules by hrseg's names",
    "TRAIN.FREEZE_EPOCHS": "train.freeze holds for the whole run",
    "TRAIN.RESUME": "tools/train.py --resume",
    "TRAIN.SHUFFLE": "training images are always shuffled",
    "TEST.BATCH_SIZE_PER_GPU": "eval.batch_size groups images of one size",
    "TEST.IMAGE_SIZE": "images are scored at their own size",
    "TEST.MODEL_FILE": "tools/test.py --checkpoint",
    "TEST.NUM_SAMPLES": "every image is scored",
}
# Keys that show the branch HRNet-OCR.
OCR_BRANCH = (
    "MODEL.ALIGN_CORNERS",
    "MODEL.NUM_OUTPUTS",
    "MODEL.OCR",
    "LOSS.BALANCE_WEIGHTS",
    "TRAIN.NONBACKBONE_KEYWORDS",
)
DATASETS = {"cityscapes": "cityscapes", "ade20k": "ade20k"}
READ_OTHERWISE = ("MODEL.EXTRA.", "MODEL.ALIGN_CORNERS", "MODEL.NUM_OUTPUTS", "TRAIN.NONBACKBONE_MULT")


@dataclass
class TranslatedConfig:
    """Settings of hrseg by section, and notes on their origin."""

    plain: dict[str, Any]
    dead: dict[str, str] = field(
        default_factory=dict
    )  # keys in the file without effect in the reference code, to the reason
    left: dict[str, str] = field(default_factory=dict)  # keys in the file without a setting here, to the reason
    notes: list[str] = field(default_factory=list)  # what depends on the branch, and what else to look at

    def to_yaml(self, source: str) -> str:
        """A YAML file whose header carries the notes."""
        lines = [f"# From {source}, settings of HRNet-Semantic-Segmentation."]
        lines += [f"# {note}" for note in self.notes]
        for word, keys in (("has no effect there", self.dead), ("no setting here", self.left)):
            lines += [f"# {key}: {word}: {why}" for key, why in keys.items()]
        for section, values in self.plain.items():
            if isinstance(values, list):
                lines += [f"{section}:", *(f"- {_flow(value)}" for value in values)]
            else:
                lines.append(f"{section}: {_flow(values)}")
        return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(entry) for entry in value) + "]"
    # JSON is YAML, but for numbers such as 1e-05, which YAML reads as text.
    return f"{value:.10f}".rstrip("0") if isinstance(value, float) and "e" in repr(value) else json.dumps(value)


def is_reference_config(plain: Any) -> bool:
    """Whether a YAML file's content is settings of the reference code."""
    return isinstance(plain, Mapping) and any(str(key) in _SECTIONS for key in plain)


_SECTIONS = ("MODEL", "DATASET", "TRAIN", "TEST", "LOSS", "CUDNN", "GPUS")


def read_reference_config(path: str | Path) -> TranslatedConfig:
    """The settings of hrseg for a YAML file of the reference code.

    Raises ConfigError where the file holds no such settings, or its network is not an HRNet that hrseg knows.
    """
    plain = settings.read_yaml(path)
    if not is_reference_config(plain):
        raise ConfigError(path, "is not a settings file of the reference code.", "Its sections are MODEL, TRAIN, ...")
    translated = translate_config(settings.flattened(plain), str(path))
    settings.parse(translated.plain, where=f"{path}, as settings of hrseg")
    return translated


def translate_config(given: Mapping[str, Any], where: str = "settings") -> TranslatedConfig:
    """Settings of hrseg from the reference code's settings by their dotted names."""
    value = {**DEFAULTS, **given}
    translated = TranslatedConfig({})
    for key in given:
        top = key.partition(".")[0]
        if key in DEAD or top in DEAD or key.endswith(".FUSE_METHOD"):
            translated.dead[key] = DEAD.get(key) or DEAD.get(top) or "streams are summed whatever it says"
        elif key in WITHOUT_COUNTERPART or top in WITHOUT_COUNTERPART:
            translated.left[key] = WITHOUT_COUNTERPART.get(key) or WITHOUT_COUNTERPART[top]
        elif key not in DEFAULTS and not key.startswith((*READ_OTHERWISE, *OCR_BRANCH)):
            translated.left[key] = "unknown to hrseg, and to the reference code as published"
    ocr_branch = any(key.startswith(OCR_BRANCH) for key in given) or "ocr" in value["MODEL.NAME"]
    translated.plain["model"] = _model(given, value, ocr_branch, translated, where)
    translated.plain["data"] = _data(value, translated)
    translated.plain["augment"] = _augment(value)
    translated.plain["loss"] = _loss(given, value, translated)
    translated.plain["optim"] = _optim(given, value, translated, where)
    gpus = value["GPUS"] if not isinstance(value["GPUS"], str) else ast.literal_eval(value["GPUS"])
    translated.plain["train"] = {
        "epochs": value["TRAIN.END_EPOCH"],
        "batch_size": value["TRAIN.BATCH_SIZE_PER_GPU"] * len(gpus),
    }
    evaluation = _evaluation(value)
    if evaluation:
        translated.plain["eval"] = evaluation
    if "GPUS" not in given:
        translated.notes.append(
            "GPUS is not in the file: one was assumed; train.batch_size is a step's, over all of them."
        )
    return translated


def _model(
    given: Mapping, value: Mapping, ocr_branch: bool, translated: TranslatedConfig, where: str
) -> dict[str, Any]:
    ocr = "ocr" in value["MODEL.NAME"]
    aligned = given.get("MODEL.ALIGN_CORNERS", ocr_branch)
    if "MODEL.ALIGN_CORNERS" not in given:
        translated.notes.append(
            "MODEL.ALIGN_CORNERS is not in the file: True is the default of branch HRNet-OCR, whose keys it has."
            if ocr_branch
            else "MODEL.ALIGN_CORNERS is not in the file: False, as branches master and pytorch-v1.1 compute; "
            "in branch HRNet-OCR the default is True (encoder ..._ac, align_corners: true, bn_momentum: 0.1)."
        )
    translated.notes.append(
        "Batch norm momentum is 0.1, as in branch HRNet-OCR."
        if ocr_branch
        else "Batch norm momentum is 0.01, as in branches master and pytorch-v1.1; it is 0.1 in HRNet-OCR."
    )
    model: dict[str, Any] = {"arch": "ocrnet" if ocr else "hrnetv2"}
    model["encoder"] = f"hrnetv2_{_variant(given, translated, where)}{'_ac' if aligned else ''}"
    if value["MODEL.PRETRAINED"]:
        model["encoder_weights"] = "imagenet"
        translated.notes.append("MODEL.PRETRAINED becomes hrseg's own ImageNet weights; other files: model.weights.")
    if aligned:
        model["align_corners"] = True
    # The heads of OCRNet keep torch's start values there: modules named cls, aux and ocr are left out.
    return {**model, "init": "default" if ocr else "reference", "bn_momentum": 0.1 if ocr_branch else 0.01}


def _variant(given: Mapping, translated: TranslatedConfig, where: str) -> str:
    """The HRNet variant that MODEL.EXTRA describes."""
    if not any(key.startswith("MODEL.EXTRA.STAGE") for key in given):
        translated.notes.append("MODEL.EXTRA is not in the file: W48 was assumed.")
        return "w48"
    extra = {key.removeprefix("MODEL.EXTRA."): v for key, v in given.items() if key.startswith("MODEL.EXTRA.STAGE")}
    if extra.get("STAGE4.NUM_CHANNELS") is None:
        raise ConfigError(f"{where}, MODEL.EXTRA.STAGE4.NUM_CHANNELS", "is missing: the width cannot be told.")
    rows = {
        name: {
            "STAGE1.NUM_BLOCKS": [v.bottlenecks],
            "STAGE1.NUM_CHANNELS": [v.bottleneck_width],
            **{f"STAGE{s}.NUM_MODULES": v.modules[s - 2] for s in (2, 3, 4)},
            **{f"STAGE{s}.NUM_BLOCKS": [v.blocks] * s for s in (2, 3, 4)},
            **{f"STAGE{s}.NUM_CHANNELS": [v.width * 2**r for r in range(s)] for s in (2, 3, 4)},
        }
        for name, v in VARIANTS.items()
    }
    for name, row in rows.items():
        if all(extra[key] == wanted for key, wanted in row.items() if key in extra):
            return name
    raise ConfigError(
        f"{where}, MODEL.EXTRA",
        f"describes no HRNet that hrseg knows (width {extra['STAGE4.NUM_CHANNELS'][0]}).",
        f"Known: {', '.join(VARIANTS)}.",
    )


def _data(value: Mapping, translated: TranslatedConfig) -> dict[str, Any]:
    name = value["DATASET.DATASET"]
    data: dict[str, Any] = {"dataset": DATASETS.get(name, "folder")}
    if name not in DATASETS:
        translated.notes.append(
            f"hrseg has no data set '{name}': make it a folder data set with {value['DATASET.NUM_CLASSES']} classes."
        )
    if value["DATASET.ROOT"]:
        data["root"] = value["DATASET.ROOT"]
        translated.notes.append("data.root is the file's; point it to the folder that docs/datasets.md describes.")
    if name in DATASETS:
        # The lists are told apart by their names there too.
        train, val = (Path(value[f"DATASET.{key}"]).stem for key in ("TRAIN_SET", "TEST_SET"))
        if "trainval" in train:
            data["train_split"] = "trainval"
        if "test" in val and "testval" not in val:
            data["val_split"] = "test"
    return {**data, "workers": value["WORKERS"]}


def _augment(value: Mapping) -> dict[str, Any]:
    width, height = value["TRAIN.IMAGE_SIZE"]
    augment: dict[str, Any] = {}
    if not (value["DATASET.DATASET"] == "cityscapes" and value["TRAIN.BASE_SIZE"] == 2048):  # its own width
        augment["long_side"] = value["TRAIN.BASE_SIZE"]
    if value["TRAIN.MULTI_SCALE"]:
        augment |= {"scale": [0.5, round(0.5 + value["TRAIN.SCALE_FACTOR"] / 10, 1)], "scale_step": 0.1}
    return {**augment, "crop": [height, width], "flip": 0.5 if value["TRAIN.FLIP"] else 0.0}


def _loss(given: Mapping, value: Mapping, translated: TranslatedConfig) -> list[dict[str, Any]]:
    weights = {}
    if value["DATASET.DATASET"] == "cityscapes":
        weights = {"class_weights": list(CLASS_WEIGHTS)}
        translated.notes.append(
            "The Cityscapes class weights are in the code there, always on; here they are written out."
        )
    main: dict[str, Any] = {"name": "cross_entropy"}
    if value["LOSS.USE_OHEM"]:
        main = {"name": "ohem", "thresh": value["LOSS.OHEMTHRES"], "min_kept": value["LOSS.OHEMKEEP"]}
        translated.notes.append("min_kept counts the pixels of one process's batch, here as there.")
        if "LOSS.OHEMKEEP" not in given:
            translated.notes.append("LOSS.OHEMKEEP is not in the file: 100000 in pytorch-v1.1, 131072 in HRNet-OCR.")
    balance = value["LOSS.BALANCE_WEIGHTS"]
    if "ocr" not in value["MODEL.NAME"]:
        return [{**main, **weights}]
    aux_weight, main_weight = balance if len(balance) == 2 else (0.4, 1)
    if len(balance) != 2:
        translated.notes.append("LOSS.BALANCE_WEIGHTS is not in the file: [0.4, 1] was assumed, auxiliary and main.")
    aux = {"name": "cross_entropy", "output": "aux", "weight": aux_weight}
    if value["LOSS.USE_OHEM"]:
        aux["average"] = "all"
        translated.notes.append(
            "Beside OHEM the auxiliary cross entropy is averaged over all pixels, ignored ones included."
        )
    return [{**main, **({"weight": main_weight} if main_weight != 1 else {}), **weights}, {**aux, **weights}]


def _optim(given: Mapping, value: Mapping, translated: TranslatedConfig, where: str) -> dict[str, Any]:
    if value["TRAIN.OPTIMIZER"] != "sgd":
        raise ConfigError(f"{where}, TRAIN.OPTIMIZER", f"is {value['TRAIN.OPTIMIZER']!r}; the reference code has sgd.")
    if "TRAIN.WD" not in given:
        translated.notes.append(
            "TRAIN.WD is not in the file: 0.0001 is the default there (0.0005 in the Cityscapes files)."
        )
    optim = {"name": "sgd", "lr": value["TRAIN.LR"], "momentum": value["TRAIN.MOMENTUM"]}
    if value["TRAIN.NESTEROV"]:
        optim["nesterov"] = True
    if value["TRAIN.NONBACKBONE_KEYWORDS"]:
        optim["head_lr"] = value["TRAIN.NONBACKBONE_MULT"]
    return {**optim, "weight_decay": value["TRAIN.WD"], "schedule": "poly", "power": 0.9}


def _evaluation(value: Mapping) -> dict[str, Any]:
    evaluation: dict[str, Any] = {}
    if value["DATASET.DATASET"] == "ade20k":
        evaluation["short_side"] = value["TEST.BASE_SIZE"]
    if value["TEST.FLIP_TEST"]:
        evaluation["flip"] = True
    if value["TEST.MULTI_SCALE"]:
        evaluation["scales"] = list(value["TEST.SCALE_LIST"])
    return evaluation
