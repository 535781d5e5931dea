"""The typed settings of one run. Every setting is named, typed, described and given its default here.

The text below a setting is its description on docs/configuration.md, in Markdown. Renew that page after a change:
python -m hrseg.config docs/configuration.md
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from hrseg.config.section import (
    FactorRange,
    Name,
    NetworkSection,
    OpenSection,
    PieceName,
    Positive,
    PositiveNumber,
    Precision,
    Section,
    Share,
    Size,
    TypeName,
    ValueRange,
)
from hrseg.config.yaml_files import yaml_text


class RunConfig(Section):
    dir: Path | None = None
    """The run folder; null: `runs/` and the config's stem."""
    seed: Annotated[int, Field(ge=0, lt=2**63), TypeName("integer from 0, below 2^63")] = 0
    """All randomness follows from it."""
    device: str = "auto"
    """`auto` (CUDA where there is a GPU, else the CPU), `cpu`, `cuda`, `cuda:1`, `mps`."""
    threads: Positive | None = None
    """CPU threads of one process; null: PyTorch's choice."""
    deterministic: bool = False
    """On CUDA, use only operations that repeat bit for bit; an operation without such a form is an error."""


class ModelConfig(NetworkSection):
    """Other settings of this section go to the architecture, e.g. align_corners or decoder_channels."""

    arch: PieceName = "hrnetv2"
    """`hrnetv2`, `ocrnet`, or an architecture of smp: `unet`, `unetplusplus`, `manet`, `linknet`, `fpn`, `pspnet`,
    `deeplabv3`, `deeplabv3plus`, `pan`, `upernet`, `segformer`, `dpt`; null: as in `weights`.
    """
    encoder: Name = "hrnetv2_w18"
    """An HRNet ([architecture.md](architecture.md)), an encoder of smp (`resnet50`), or one of timm
    (`tu-convnext_tiny`); null: as in `weights`.
    """
    encoder_weights: Name | None = None
    """Published weights of the encoder, for example `imagenet`; null: random weights."""
    weights: str | None = None
    """A checkpoint to start from: a file, a run's folder, `hf:owner/name`, or an address with `#sha256=`; append
    `#encoder` to take the encoder alone. `arch` and `encoder` are the file's unless they are set.
    """
    extra_channels: Literal["tile", "zero"] = "tile"
    """How input channels beyond those of the weights start (of HRNets alone with `encoder_weights`): the known ones
    repeated and scaled, or 0."""
    init: Literal["default", "reference"] = "default"
    """`reference`: convolutions from N(0, 0.001), as in the reference segmentation code, the encoder too unless it has
    `encoder_weights`.
    """
    bn_momentum: Share | None = None
    """The share of a batch in batch norm's running statistics; null: the architecture's own (PyTorch's default is 0.1).
    """
    sync_bn: bool = True
    """Batch norm over all processes where there are several CUDA processes; no effect elsewhere."""


class SamplingConfig(Section):
    """Which images and crops training draws; see [rare classes](learning.md#rare-classes)."""

    rare: Share = 0.5
    """The share of the crops that is put around a pixel of a class, which is drawn by inverse frequency."""


class DataConfig(OpenSection):
    """Other settings of this section go to the data set, e.g. coarse (cityscapes) or classes (folder)."""

    dataset: PieceName = "folder"
    """`folder`, `cityscapes`, `ade20k`, `camvid`."""
    root: Path = Path("data")
    """The folder of the data set."""
    task: Literal["multiclass", "binary", "multilabel"] = "multiclass"
    """One class per pixel; one foreground class; labels that may overlap."""
    train_split: Name = "train"
    """The split to train on."""
    val_split: Name = "val"
    """The split to validate on, which `tools/test.py` scores."""
    folds: Annotated[int, Field(ge=2)] | None = None
    """Divide the images of `train_split` into this many folds, or all images where `val_share` is set; `val_split` is
    not read then; see [datasets.md](datasets.md#folds).
    """
    fold: Annotated[int, Field(ge=0)] = 0
    """The fold that validates; the others train."""
    workers: Annotated[int, Field(ge=0)] = 4
    """Reading processes per training process; 0 reads in the training process itself."""
    mean: list[float] | None = None
    """One per channel, after `input_range`; null: the encoder weights' or ImageNet's for three channels, else 0.5."""
    std: list[PositiveNumber] | None = None
    """One per channel; null: likewise, else 0.25."""
    input_range: list[ValueRange] | ValueRange | None = None
    """The values that become 0 and 1, one range for all channels or one per channel; null: 0 to 255 for 8 bits, 0 to
    65535 for 16, 0 to 1 for float.
    """
    check: bool = True
    """Look at every pair of files before training."""
    labelled: Path | None = None
    """A text file with the names of the images of `train_split` whose masks are used, one per line; null: all."""
    sampling: SamplingConfig | None = None
    """Crops around rare classes, as below; null: every image as often, crops anywhere."""
    cache: Literal["none", "strips", "raw"] = "none"
    """Decoded samples on disk: `strips`, compressed without loss to about the size of PNGs, or `raw`; see
    [datasets.md](datasets.md#cache).
    """
    cache_dir: Path | None = None
    """The folder of the cache; null: `.hrseg_cache` in `root`."""

    @model_validator(mode="after")
    def _ranges(self) -> DataConfig:
        ranges = [self.input_range] if isinstance(self.input_range, tuple) else self.input_range or []
        if any(low >= high for low, high in ranges):
            raise ValueError("input_range: each entry is [low, high] with low below high")
        return self

    @model_validator(mode="after")
    def _one_of_the_folds(self) -> DataConfig:
        if self.folds is not None and self.fold >= self.folds:
            raise ValueError(f"fold: {self.fold} is not one of the {self.folds} folds, which count from 0")
        if self.folds is not None and self.train_split == self.val_split:
            raise ValueError("folds: train_split and val_split need different names")
        return self


class JitterConfig(Section):
    """Colour jitter as albumentations and torchvision define it, applied to a share p of the images."""

    brightness: Share = 0.0
    """A factor from 1 - b to 1 + b."""
    contrast: Share = 0.0
    """Likewise."""
    saturation: Share = 0.0
    """Likewise."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """A shift of the hue, in turns."""
    p: Share = 1.0
    """The share of images that are changed."""


class AugmentConfig(Section):
    short_side: Positive | None = None
    """First, the image's short side is resized to this many pixels."""
    long_side: Positive | None = None
    """Or its long side."""
    scale: FactorRange | None = None
    """A factor on the image's size, drawn anew for each image."""
    scale_step: PositiveNumber | None = None
    """The factors are low, low + step, and so on; null: any value of the range."""
    crop: Size | None = None
    """A random window; smaller images are padded at the bottom and right with 0 and the ignore index. Needed where
    images differ in size.
    """
    max_class_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The largest share of one class in a crop; after ten tries, the last crop is taken."""
    flip: Share = 0.5
    """The share of images whose left and right are exchanged."""
    jitter: JitterConfig | None = None
    """Colour jitter, as below. Images other than grey or RGB of 8 bits get brightness and contrast alone, with the same
    factors for all channels.
    """
    extra: list[dict[str, Any]] = []
    """Transforms of albumentations by name, `{name: GaussianBlur, p: 0.3}`; they come last."""

    @model_validator(mode="after")
    def _range(self) -> AugmentConfig:
        if self.short_side and self.long_side:
            raise ValueError("short_side and long_side are both set: keep one")
        if self.scale and self.scale[0] > self.scale[1]:
            raise ValueError(f"scale: the lower bound {self.scale[0]} is above the upper {self.scale[1]}")
        return self


class LossConfig(OpenSection):
    """One term of the loss. Other settings of this section go to the loss, e.g. thresh and min_kept (ohem)."""

    name: PieceName
    """One of those below."""
    weight: float = 1.0
    """The weight of this term in the sum."""
    output: Literal["main", "aux"] = "main"
    """Which of the model's training outputs it looks at; `ocrnet` has an `aux`."""


class DistillConfig(Section):
    """A teacher: a trained model whose logits are learned as well; see [distillation](learning.md#a-teacher)."""

    teacher: Annotated[list[str], Field(min_length=1)] | str
    """A checkpoint, as in `model.weights`, with the same classes; of several, the mean of their probabilities."""
    kind: Literal["cwd", "kl"] = "cwd"
    """What is compared: `cwd`, where in the image each class is (Shu et al. 2021); `kl`, the classes of each pixel."""
    weight: PositiveNumber | None = None
    """In the sum with the loss; null: 3 for cwd, 1 for kl."""
    temperature: PositiveNumber | None = None
    """What both logits are divided by; null: 4 for cwd, 1 for kl."""

    @property
    def teachers(self) -> list[str]:
        return [self.teacher] if isinstance(self.teacher, str) else self.teacher


class UnlabelledConfig(Section):
    """Images without labels, of which the model, or its teacher, labels what it is sure of; see
    [images without labels](learning.md#images-without-labels).
    """

    root: Path | None = None
    """A folder of images; null: the images of `data.train_split` that `data.labelled` leaves out or that have no mask.
    """
    batch_size: Positive | None = None
    """Images per step, over all processes, besides those of `train.batch_size`; null: as many."""
    weight: PositiveNumber = 1.0
    """In the sum with the loss."""
    threshold: Share = 0.95
    """A pixel counts where the probability of its label is at least this."""


class OptimConfig(OpenSection):
    """Other settings of this section go to the optimizer, e.g. betas (adamw)."""

    name: PieceName = "sgd"
    """`sgd`, `adamw`; options go to the class of `torch.optim`, for example `betas`."""
    lr: PositiveNumber = 0.01
    """The learning rate after warm-up."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """`sgd` only."""
    nesterov: bool = False
    """`sgd` only."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Decay of the weights."""
    decay_all: bool = True
    """False: no weight decay on biases and normalisation layers."""
    head_lr: PositiveNumber = 1.0
    """The learning rate of everything but the encoder, as a factor on `lr`."""
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    """How the learning rate falls after warm-up."""
    power: PositiveNumber = 0.9
    """Of poly: lr (1 - t)^power, t from 0 to 1 over the run."""
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    """Where poly and cosine end."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """The iterations in which the learning rate rises from near 0 in equal steps."""


class TrainConfig(Section):
    iterations: Positive | None = None
    """The length of the run in optimizer steps."""
    epochs: PositiveNumber | None = None
    """Or in epochs, whole batches only. Neither: one epoch. Both: an error."""
    batch_size: Positive = 8
    """Images per step, over all processes."""
    accumulate: Positive = 1
    """A step's images go through the network in this many parts."""
    precision: Precision = "fp32"
    """Of the network's forward pass; the loss is computed in fp32; fp16 scales the loss."""
    channels_last: bool = True
    """The order of a tensor in memory."""
    compile: bool = False
    """`torch.compile` of forward pass and loss."""
    recompute: bool = False
    """Activation checkpointing: an HRNet keeps only the inputs of its modules for the backward pass and computes the
    rest again; the same losses with less memory, in more time.
    """
    clip_norm: PositiveNumber | None = None
    """The norm to which a larger gradient is scaled down."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of a running average of the weights, which is then what is validated; null: no average."""
    freeze_bn: bool = False
    """Batch norm keeps its running statistics."""
    freeze: list[str] = []
    """Modules that do not learn, `[encoder.conv1, encoder.layer1]`."""
    val_every: Positive | None = None
    """Iterations between validations; null: once per epoch; always at the end."""
    checkpoint_every: Positive | None = None
    """Iterations between checkpoints; null: with each validation; always at the end."""
    log_every: Positive = 10
    """Iterations per record in `log.jsonl`."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What follows a loss or gradient that is not finite, see [reliability](reliability.md#losses-that-are-not-finite).
    """

    @model_validator(mode="after")
    def _one_length(self) -> TrainConfig:
        if self.iterations is not None and self.epochs is not None:
            raise ValueError("iterations and epochs are both set: keep one, set the other to null")
        return self


class EvalConfig(Section):
    mode: Literal["whole", "slide"] = "whole"
    """The whole image at once, or overlapping windows."""
    window: Size | None = None
    """Of slide, which needs it."""
    stride: Size | None = None
    """Of slide; null: two thirds of the window."""
    short_side: Positive | None = None
    """The image's short side is resized to this; scores stay at the mask's own size."""
    scales: Annotated[list[PositiveNumber], Field(min_length=1)] = [1.0]
    """The image is also seen at these factors of its size, probabilities averaged."""
    flip: bool = False
    """Mirrored too, averaged likewise."""
    turns: bool = False
    """Turned by 90, 180 and 270 degrees too, averaged likewise; for images without an up, taken from above or through a
    microscope.
    """
    batch_size: Positive = 1
    """Neighbouring images of one size that go through the network together."""
    precision: Precision | None = None
    """null: as in training."""
    definition: Literal["cityscapes", "ade20k", "hrnet", "mmseg", "smp"] | None = None
    """How an absent class counts in the mean: `cityscapes` and `mmseg` leave it out, `ade20k` and `hrnet` count 0,
    `smp` counts 1; null: as the data set's benchmark does.
    """
    cluster: str | None = None
    """Which images belong together when intervals are computed: `image`, each on its own; a regular expression,
    searched in the name, whose first group counts; null: as the data set has it.
    """
    boundary_ratio: Annotated[float, Field(ge=0, lt=0.5)] | None = None
    """The width of boundary IoU's band over the image's diagonal; 0: not measured; null: as usual for the data set,
    0.005 for Cityscapes, else 0.02.
    """
    pictures: Annotated[int, Field(ge=0)] = 8
    """Validation pictures in the run folder."""
    backend: Literal["auto", "torch", "onnxruntime", "openvino", "none"] = "auto"
    """What runs the fast form of the model, from 16 images on: an engine where one is installed (in training: PyTorch),
    PyTorch, or one of the engines; `none`: the model itself.
    """

    @model_validator(mode="after")
    def _window(self) -> EvalConfig:
        if self.mode == "slide" and self.window is None:
            raise ValueError("mode: slide needs eval.window: [height, width]")
        return self

    @field_validator("cluster")
    @classmethod
    def _expression(cls, cluster: str | None) -> str | None:
        try:
            re.compile(cluster or "")
        except re.error as error:
            raise ValueError(f"'{cluster}' is not a regular expression: {error}") from None
        return cluster


class TrackConfig(Section):
    wandb: Literal["online", "offline", "disabled"] = "disabled"
    """Scalars, pictures, class table and settings to Weights & Biases; without a key and without a terminal, online
    becomes offline.
    """
    project: str = "hrseg"
    """wandb's project."""
    entity: str | None = None
    """wandb's user or team; null: wandb's default."""
    name: str | None = None
    """The run's name in wandb; null: the run folder's name."""
    tags: list[str] = []
    """The run's tags in wandb."""
    checkpoint: bool = False
    """At the end of the run `best.pt` goes to wandb as an artifact."""
    tensorboard: bool = False
    """Scalars, pictures and class IoU as event files in the run folder's `tensorboard/`; needs the package."""


class Config(Section):
    """All settings of one run."""

    run: RunConfig = RunConfig()
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: list[LossConfig] = []  # empty: cross_entropy, or bce for binary and multilabel tasks
    distill: DistillConfig | None = None
    unlabelled: UnlabelledConfig | None = None
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    track: TrackConfig = TrackConfig()

    def to_plain(self) -> dict[str, Any]:
        """Plain types only, as in YAML and in a checkpoint."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        return yaml_text(self.to_plain())
