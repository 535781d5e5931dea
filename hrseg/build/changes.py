"""What has changed between a checkpoint and the settings of the run that resumes it.

Settings may change; what the numbers mean may not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from hrseg import config as settings
from hrseg import distributed
from hrseg.config import Config, DataConfig, ModelConfig
from hrseg.data.dataset import Dataset
from hrseg.errors import ConfigError
from hrseg.task import LabelSpace, Normalisation

# With the options of the piece itself, these say what model it is, and on which data.
MEANING = {
    "model": {"arch", "encoder"},
    "data": {"dataset", "task", "train_split", "val_split", "mean", "std", "input_range"},
}
KNOWN = {"model": set(ModelConfig.model_fields), "data": set(DataConfig.model_fields)}


class Change(NamedTuple):
    """A setting that is not as it was."""

    setting: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.setting}: {self.before} -> {self.now}"


def with_saved_model(config: Config, saved: Mapping[str, Any]) -> Config:
    """The settings with the checkpoint's arch and encoder where they were taken from model.weights."""
    model, before = config.model, saved["config"].get("model", {})
    if not model.weights:
        return config
    taken = {k: before[k] for k in ("arch", "encoder") if k in before and k not in model.model_fields_set}
    if "arch" in taken:
        taken |= {k: v for k, v in before.items() if k not in KNOWN["model"] and k not in model.options}
    completed = type(model)(**{**model.model_dump(exclude_unset=True), **taken})
    return config.model_copy(update={"model": completed})


def changed_settings(saved: Mapping[str, Any], config: Config) -> list[Change]:
    """All that differ from a checkpoint's, and the number of processes; not where the run lies and who follows it."""
    try:
        before = settings.parse(saved["config"]).to_plain()
    except ConfigError:  # of a version with other settings
        before = saved["config"]
    old, new = settings.flattened(before), settings.flattened(with_saved_model(config, saved).to_plain())
    old["processes"], new["processes"] = saved["rng"].get("world_size", 1), distributed.world_size()
    changes = [Change(key, old.get(key), new.get(key)) for key in dict.fromkeys([*old, *new])]
    unimportant = ("run.dir", "track.")
    return [c for c in changes if c.before != c.now and not c.setting.startswith(unimportant)]


def require_same_meaning(saved: Mapping[str, Any], config: Config) -> None:
    """Raise ConfigError if task, model or data set are other ones than the checkpoint's."""
    changed = [str(change) for change in changed_settings(saved, config) if _is_meaning(change.setting)]
    if changed:
        what = f"the checkpoint is of another model or data set: {'; '.join(changed)}."
        raise ConfigError(
            "--resume", what, "Set it as it was, or start a new run from its weights: model.weights=PATH."
        )


def _is_meaning(key: str) -> bool:
    section, _, name = key.partition(".")
    name = name.partition(".")[0]
    return section in MEANING and (name in MEANING[section] or name not in KNOWN[section])


def require_same_data(saved: Mapping[str, Any], train_set: Dataset, val_set: Dataset) -> None:
    """Raise ConfigError if classes or images are not those that the checkpoint was trained and validated with."""
    before, now = LabelSpace.from_plain(saved), train_set.space
    if (before.names, before.task, before.ignore_index) != (now.names, now.task, now.ignore_index):
        gone, come = (", ".join(n for n in a.names if n not in b.names) for a, b in ((before, now), (now, before)))
        what = f"the checkpoint's {len(before.names)} classes are not the data set's {len(now.names)}"
        details = "; ".join(filter(None, (gone and f"gone: {gone}", come and f"new: {come}")))
        what += f" ({details or 'their order, task or ignore index differs'})."
        raise ConfigError("--resume", what, "Start a new run from its weights: model.weights=PATH.")
    identity = data_identity(train_set, val_set)
    known = saved.get("data", identity)
    if known != identity:
        then, today = (f"{data['train'][0]} and {data['val'][0]}" for data in (known, identity))
        what = f"the training and validation images are not those of the checkpoint: {then} then, {today} now"
        what += "." if then != today else ", under other names."
        way_out = "Are all files there? For other data: model.weights=PATH."
        if saved["config"].get("data", {}).get("val_share"):
            way_out += " hrseg up to 0.1 divided by val_share only roughly; since then it is that share exactly."
        raise ConfigError("--resume", what, way_out)


def other_validation_images(saved: Mapping[str, Any] | None, config: Config, val_set: Dataset) -> str | None:
    """A sentence if a share of the images is scored that are not the validation images of the checkpoint.

    saved: what a checkpoint tells of its images, see `data_identity`.
    """
    if not saved or not config.data.options.get("val_share") or saved["val"] == [len(val_set), _digest(val_set.names)]:
        return None
    return (
        f"data.val_share: these {len(val_set)} images are not the {saved['val'][0]} that the checkpoint was validated "
        "with. It may have learned from some of them, and scores may be too good."
    )


def require_same_values(before: Normalisation, now: Normalisation) -> None:
    """Raise ConfigError if the training images have another range of values than the checkpoint's."""
    if before.input_range != now.input_range:
        then, today = (", ".join(dict.fromkeys(f"{a:g} to {b:g}" for a, b in n.input_range)) for n in (before, now))
        what = f"the training images have values of {today}, those of the checkpoint had {then}."
        raise ConfigError("--resume", what, "Are these the same files? For other data: model.weights=PATH.")


def data_identity(train_set: Dataset, val_set: Dataset) -> dict[str, list[Any]]:
    """Of both sets the number of images and a checksum of their names in order."""
    return {part: [len(s), _digest(s.names)] for part, s in (("train", train_set), ("val", val_set))}


def _digest(names: Any) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()
