"""The typed settings of one run, read from YAML. Here every setting is named, typed and given its usual value."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator
from pydantic.errors import PydanticUserError

from hrseg.errors import ConfigError, nearest

Size = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]  # (height, width) in pixels
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]

MOST_BYTES = 16 * 2**20  # of a YAML file
MOST_ENTRIES = 100_000
MERGE = "tag:yaml.org,2002:merge"


class Section(BaseModel):
    """A group of settings; a name that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class OpenSection(Section):
    """A group of settings that takes the options of the piece it names too; `options` returns those.

    They are checked against the piece's own signature by `check_options`, where that piece is known.
    """

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=(), allow_inf_nan=False)

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__ or {})


class RunConfig(Section):
    dir: Path | None = None  # default: runs/<the config's stem>
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps
    threads: Positive | None = None  # CPU threads of one process
    deterministic: bool = False  # on CUDA: only operations that repeat bit for bit


class ModelConfig(OpenSection):
    """Options beside these go to the architecture, e.g. align_corners or decoder_channels."""

    arch: str = "hrnetv2"
    encoder: str = "hrnetv2_w18"
    encoder_weights: str | None = None
    weights: str | None = None  # a checkpoint to start from
    extra_channels: Literal["tile", "zero"] = "tile"  # start of input channels beyond RGB under pretrained weights
    init: Literal["default", "reference"] = "default"  # reference: convolutions N(0, 0.001)
    bn_momentum: Share | None = None  # null: as the architecture has it
    sync_bn: bool = True  # with several CUDA processes only


class DataConfig(OpenSection):
    """Options beside these go to the data set, e.g. coarse (cityscapes) or classes (folder)."""

    dataset: str = "folder"
    root: Path = Path("data")
    task: Literal["multiclass", "binary", "multilabel"] = "multiclass"
    train_split: str = "train"
    val_split: str = "val"
    folds: Annotated[int, Field(ge=2)] | None = None  # divide the images of train_split; val_split is not read
    fold: Annotated[int, Field(ge=0)] = 0  # this one validates
    workers: Annotated[int, Field(ge=0)] = 4  # reading processes of one training process; 0 reads in the process itself
    mean: list[float] | None = None  # a channel; null: ImageNet's for three channels, else 0.5
    std: list[Annotated[float, Field(gt=0)]] | None = None
    input_range: list[tuple[float, float]] | tuple[float, float] | None = (
        None  # a channel or one for all; null: by type
    )
    check: bool = True  # look at every pair of files before training
    cache: Literal["none", "strips", "raw"] = "none"  # decoded samples on disk, compressed or as they are
    cache_dir: Path | None = None  # null: .hrseg_cache in root

    @model_validator(mode="after")
    def _ranges(self) -> DataConfig:
        ranges = [self.input_range] if isinstance(self.input_range, tuple) else self.input_range or []
        if any(low >= high for low, high in ranges):
            raise ValueError("input_range: each entry is [low, high] with low below high")
        return self

    @model_validator(mode="after")
    def _one_of_the_folds(self) -> DataConfig:
        if self.folds is not None and self.fold >= self.folds:
            raise ValueError(f"fold: {self.fold} is none of {self.folds}, which count from 0")
        if self.folds is not None and self.train_split == self.val_split:
            raise ValueError("folds: train_split and val_split need different names")
        return self


class JitterConfig(Section):
    """Colour jitter as albumentations and torchvision define it, applied to a share p of the images."""

    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    p: Share = 1.0


class AugmentConfig(Section):
    short_side: Positive | None = None  # first the image's short side is brought to this many pixels
    long_side: Positive | None = None  # or its long side
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] | None = None  # times the image
    scale_step: Annotated[float, Field(gt=0)] | None = None  # null: any value of the range; 0.1: its tenths
    crop: Size | None = None
    max_class_share: Annotated[float, Field(gt=0, le=1)] = 1.0  # of one class in a crop: ten tries, then as it is
    flip: Share = 0.5
    jitter: JitterConfig | None = None
    extra: list[dict[str, Any]] = []  # albumentations transforms by name: {name: GaussianBlur, p: 0.3}

    @model_validator(mode="after")
    def _range(self) -> AugmentConfig:
        if self.short_side and self.long_side:
            raise ValueError("short_side and long_side are both set: keep one")
        if self.scale and self.scale[0] > self.scale[1]:
            raise ValueError(f"scale: the lower bound {self.scale[0]} is above the upper {self.scale[1]}")
        return self


class LossConfig(OpenSection):
    """One term of the loss. Options beside these go to the loss, e.g. thresh and min_kept (ohem)."""

    name: str
    weight: float = 1.0  # of this term in the sum
    output: Literal["main", "aux"] = "main"  # which of the model's training outputs it looks at


class OptimConfig(OpenSection):
    """Options beside these go to the optimizer, e.g. betas (adamw)."""

    name: str = "sgd"
    lr: Annotated[float, Field(gt=0)] = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # sgd
    nesterov: bool = False  # sgd
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    decay_all: bool = True  # false: no weight decay on biases and normalisation layers
    head_lr: Annotated[float, Field(gt=0)] = 1.0  # learning rate of everything but the encoder, times lr
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    power: Annotated[float, Field(gt=0)] = 0.9  # poly
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    warmup: Annotated[int, Field(ge=0)] = 0  # iterations


class TrainConfig(Section):
    iterations: Positive | None = None
    epochs: Annotated[float, Field(gt=0)] | None = None
    batch_size: Positive = 8  # images a step, over all processes
    accumulate: Positive = 1  # a step's images go through the network in this many parts
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = True
    compile: bool = False
    recompute: bool = False  # activation checkpointing
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None  # decay of the running average of the weights
    freeze_bn: bool = False
    freeze: list[str] = []  # modules by name that do not learn: [encoder.conv1, encoder.layer1]
    val_every: Positive | None = None  # iterations; null: once an epoch
    checkpoint_every: Positive | None = None  # iterations; null: with each validation
    log_every: Positive = 10  # iterations
    on_nonfinite: Literal["stop", "skip"] = "stop"  # what follows a loss or gradient that is not finite

    @model_validator(mode="after")
    def _one_length(self) -> TrainConfig:
        if self.iterations is not None and self.epochs is not None:
            raise ValueError("iterations and epochs are both set: keep one, set the other to null")
        return self


class EvalConfig(Section):
    mode: Literal["whole", "slide"] = "whole"
    window: Size | None = None  # slide
    stride: Size | None = None  # slide; null: two thirds of the window
    short_side: Positive | None = None  # the image's short side is brought to this; scores stay at the label's own size
    scales: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = [1.0]  # softmax averaged
    flip: bool = False
    turns: bool = False  # by right angles
    batch_size: Positive = 1  # images of one size that go through the network together
    precision: Literal["fp32", "bf16", "fp16"] | None = None  # null: as in training
    definition: Literal["cityscapes", "ade20k", "hrnet", "mmseg", "smp"] | None = None  # how an absent class counts
    cluster: str | None = (
        None  # which images belong together: image, or a regular expression on names; null: by data set
    )
    boundary_ratio: Annotated[float, Field(ge=0, lt=0.5)] | None = None  # of boundary IoU; 0: off; null: by data set
    pictures: Annotated[int, Field(ge=0)] = 8  # validation pictures in the run folder
    backend: Literal["auto", "torch", "onnxruntime", "openvino", "none"] = "auto"  # what the model is run by

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
            raise ValueError(f"'{cluster}' is no regular expression: {error}") from None
        return cluster


class TrackConfig(Section):
    wandb: Literal["online", "offline", "disabled"] = "disabled"
    project: str = "hrseg"
    entity: str | None = None
    name: str | None = None  # default: the run folder's name
    tags: list[str] = []
    checkpoint: bool = False  # the best one, as an artifact of wandb
    tensorboard: bool = False


class Config(Section):
    """All settings of one run."""

    run: RunConfig = RunConfig()
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: list[LossConfig] = []  # empty: cross_entropy, or bce for binary and multilabel tasks
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    track: TrackConfig = TrackConfig()

    def to_plain(self) -> dict[str, Any]:
        """Plain types only: what YAML and a checkpoint hold."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        plain = self.to_plain()
        style: dict[str, Any] = {"sort_keys": False, "default_flow_style": None, "width": 120}
        text = yaml.safe_dump(plain, allow_unicode=True, **style)
        # Unescaped, some rare line separators are read back as spaces.
        return text if yaml.safe_load(text) == plain else yaml.safe_dump(plain, **style)


class _Loader(yaml.SafeLoader):
    """Plain types only. Of a key that stands twice, YAML's usual reader drops the first without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != MERGE):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' stands here twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _from_yaml(text: str) -> Any:
    """Plain types. Raises yaml.YAMLError, ValueError or RecursionError for anything else."""
    content = yaml.load(text, _Loader)
    _size(content, {})
    return content


def _size(value: Any, known: dict[int, int | None]) -> int:
    """How many entries there are when aliases are written out. Raises ValueError for too many, or for a circle."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = None
        known[id(value)] = 1 + sum(_size(v, known) for v in (value.values() if isinstance(value, dict) else value))
    size = known[id(value)]
    if size is None:
        raise ValueError("an alias (*name) refers to what it is part of")
    if size > MOST_ENTRIES:
        raise ValueError(f"it holds more than {MOST_ENTRIES:,} entries when its aliases (*name) are written out")
    return size


def read_yaml(path: str | Path) -> Any:
    """The content of a YAML file, plain types only. Raises ConfigError where it cannot be read."""
    path = Path(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(path, f"is larger than {MOST_BYTES // 2**20} MiB.", "Is it a file of settings?")
        return _from_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(path, "no such file.", "Give the path of a YAML file.") from None
    except IsADirectoryError:
        raise ConfigError(path, "is a folder.", "Give the path of a YAML file.") from None
    except OSError as error:
        raise ConfigError(path, f"cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(path, "is not a text file in UTF-8.", "Is it a checkpoint? Settings are YAML.") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else path
        problem = getattr(error, "problem", None) or str(error) or type(error).__name__
        raise ConfigError(where, f"is not plain YAML: {problem}.", "Python tags are not read.") from None


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Settings from a YAML file, those it is based on (`base: other.yaml`), and `key=value` overrides, in rising rank.

    overrides: dotted settings, e.g. "train.iterations=200" or "loss.0.thresh=0.7"; the value is read as YAML.
    Raises ConfigError with every unknown or ill-typed setting.
    """
    return parse(override(read_with_base(path), overrides), where=str(path))


def parse(plain: Mapping[str, Any], where: str = "config") -> Config:
    """Settings from plain types. Raises ConfigError with every unknown or ill-typed setting."""
    try:
        return Config.model_validate(plain)
    except ValidationError as error:
        raise ConfigError(where, f"\n{where}, ".join(_explain(e) for e in error.errors())) from None


def read_with_base(path: str | Path, _above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A YAML file's mapping merged over the one named by its `base` (relative to the file)."""
    path = Path(path)
    plain = read_yaml(path)
    if plain is None:
        plain = {}
    if not isinstance(plain, dict):
        raise ConfigError(path, f"holds a {type(plain).__name__}, not settings.", "Write 'section: {key: value}'.")
    base = plain.pop("base", None)
    if base is None:
        return plain
    if not isinstance(base, str):
        raise ConfigError(f"{path}, base", f"must be the path of one YAML file, not {base!r}.")
    if path.resolve() in _above:
        raise ConfigError(f"{path}, base", "the files name each other in a circle.")
    return merge(read_with_base(path.parent / base, (*_above, path.resolve())), plain)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`: mappings merge key by key, everything else (lists too) is replaced."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def override(plain: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `plain` with each "dotted.key=value" set."""
    result: dict[str, Any] = _copied(plain)
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"'{item}'", "is not key=value.", "For example train.iterations=200.")
        try:
            value = _from_yaml(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ConfigError(f"'{item}'", f"the value is not YAML: {getattr(error, 'problem', error)}.") from None
        _set(result, key.split("."), value, item)
    return result


def flattened(plain: Any, prefix: str = "") -> dict[str, Any]:
    """Settings by dotted name, as `key=value` sets them.

    A list of sections is taken apart by number (loss.0.name); a list of values is one value.
    """
    if isinstance(plain, list) and any(isinstance(item, Mapping) for item in plain):
        plain = dict(enumerate(plain))
    if not isinstance(plain, Mapping):
        return {prefix: plain}
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        flat |= flattened(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _copied(value: Any) -> Any:
    """A copy in which nothing is shared: YAML's aliases (*name) otherwise change together."""
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _set(node: Any, keys: list[str], value: Any, item: str) -> None:
    *path, last = keys
    for key in path:
        if isinstance(node, list):
            node = node[_index(node, key, item)]
        else:
            if node.get(key) is None:
                node[key] = {}
            node = node[key]
        if not isinstance(node, dict | list):
            raise ConfigError(f"'{item}'", f"'{key}' holds a value, not settings.")
    if isinstance(node, list):
        node[_index(node, last, item)] = value
    else:
        node[last] = value


def _index(node: list, key: str, item: str) -> int:
    if not key.isdigit() or int(key) >= len(node):
        raise ConfigError(f"'{item}'", f"'{key}' is not the number of an entry: the list has {len(node)}.")
    return int(key)


def _explain(error: Any) -> str:
    """One pydantic error as a sentence with its dotted path."""
    loc = [str(part) for part in error["loc"] if not str(part).startswith(("tuple[", "list[", "function-"))]
    dotted = ".".join(loc) or "settings"
    if error["type"] == "extra_forbidden":
        return f"{dotted}: no such setting. {nearest(loc[-1], _known_settings(loc[:-1]))}"
    if error["type"] == "missing":
        return f"{dotted}: is missing."
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":  # of a section's own rule, which names the setting
        return f"{dotted}: {message}."
    return f"{dotted}: {message[0].lower() + message[1:]}, not {error['input']!r}."


def _known_settings(path: Iterable[str]) -> list[str]:
    model: type[BaseModel] = Config
    for part in path:
        if part.isdigit():
            continue
        annotation = model.model_fields[part].annotation
        inner = [annotation, *getattr(annotation, "__args__", ())]
        model = next(a for a in inner if inspect.isclass(a) and issubclass(a, BaseModel))
    return [*model.model_fields, *(["base"] if model is Config else [])]


def check_options(
    piece: Callable, options: Mapping[str, Any], *, where: str, wired: Iterable[str] = (), also: Iterable[str] = ()
) -> dict[str, Any]:
    """The options as the piece's signature wants them, e.g. 1e-2, which YAML reads as a string, as a float.

    wired: parameters that hrseg fills in itself, not to be set. also: settings of the same section that are known
    beside the options, to be suggested for a misspelt one.
    Raises ConfigError for an option that the signature does not have (with the nearest known name), for a missing one,
    and for one of another type.
    """
    parameters = _signature(piece).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = {p.name for p in parameters if p.kind in kinds} - set(wired) - {"self"}
    for name in options:
        if name not in known:
            raise ConfigError(f"{where}.{name}", "no such setting.", nearest(name, {*known, *also}))
    missing = [p.name for p in parameters if p.name in known and p.default is p.empty and p.name not in options]
    if missing:
        raise ConfigError(f"{where}.{missing[0]}", f"is missing: {getattr(piece, '__name__', piece)} needs it.")
    annotations = {p.name: p.annotation for p in parameters}
    return {name: as_type(annotations[name], value, f"{where}.{name}") for name, value in options.items()}


def _signature(piece: Callable) -> inspect.Signature:
    try:
        return inspect.signature(piece, eval_str=True)
    except Exception:  # annotations of a foreign piece that are for type checkers only
        return inspect.signature(piece)


def as_type(annotation: Any, value: Any, where: str) -> Any:
    """The value as an annotation wants it; as it is where pydantic does not know the annotation.

    Raises ConfigError if it does not fit.
    """
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return value
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=False)).validate_python(value)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise ConfigError(where, f"{message[0].lower()}{message[1:]}, not {value!r}.") from None
    except PydanticUserError:
        return value


def is_dotted_path(name: str) -> bool:
    """Whether a setting names a piece outside hrseg, as `mylab.losses:focal` does."""
    return ":" in name


def import_piece(path: str, where: str) -> Any:
    """The object that a dotted path such as `mylab.losses:focal` names; modules of the current folder count.

    where: the setting that holds the path. Raises ConfigError if the module or the object is not there.
    """
    module_name, _, name = path.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(error.name + ".")):
            raise  # an import inside that module fails: its own traceback says more
        raise ConfigError(
            where, f"no module '{error.name}'.", "Install it, or start from the folder it is in."
        ) from None
    except (ValueError, TypeError):
        raise ConfigError(where, f"'{path}' is no dotted path.", "Write package.module:name.") from None
    try:
        return getattr(module, name)
    except AttributeError:
        raise ConfigError(where, f"'{module_name}' has no '{name}'.", nearest(name, vars(module))) from None
