"""A model on the Hugging Face hub, or in a folder in its form: weights, settings, meaning, and a model card."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import torch

from hrseg.build.trained_model import TrainedModel, load_trained_model
from hrseg.data.images.large_images import open_image
from hrseg.data.loader import normalise
from hrseg.errors import HrsegError, WeightsError, first_line
from hrseg.files import write_json, write_text
from hrseg.inference import Inference, forward
from hrseg.made_files import require_replaceable
from hrseg.report import pictures
from hrseg.report.run_folder import data_name
from hrseg.task import Task
from hrseg.weights import checkpoint
from hrseg.weights.save import write_safetensors

# Of metrics.json and of the settings: paths of the machine that trained, its command, who follows the run.
NOT_PUBLISHED = ("config", "checkpoint", "command", "folder", "argv")
PRIVATE_SETTINGS = {"run": ("dir",), "data": ("root", "cache_dir"), "model": ("weights",)}
WEIGHTS, CONFIG, CARD, PICTURE = "model.safetensors", "config.json", "README.md", "picture.png"


def save_pretrained(
    loaded: TrainedModel,
    folder: str | Path,
    *,
    metrics: Mapping[str, Any] | None = None,
    licence: str | None = None,
    picture: str | Path | None = None,
    name: str | None = None,
) -> Path:
    """Write a folder in the hub's form: `from_pretrained` reads all of it, smp.from_pretrained only the model.

    metrics: as in metrics.json. licence: the hub's name for it, e.g. "cc-by-4.0"; only you can state it. picture: an
    image that the model segments for the card. name: the card's title, by default the folder's name.
    Raises HrsegError where a file cannot be written or the picture's channels are not those that the model takes.
    """
    folder = Path(folder)
    for name_of_file in (WEIGHTS, CONFIG, CARD, *([PICTURE] if picture else [])):
        require_replaceable(folder / name_of_file)
    shown = None if picture is None else _segmented(loaded, Path(picture))
    meaning = {"normalisation": loaded.normalisation.to_plain(), **loaded.space.to_plain()}
    meaning |= {} if loaded.space.task is Task.MULTICLASS else {"threshold": loaded.threshold}
    settings = {"format": checkpoint.FORMAT, "step": loaded.step, "config": _published(loaded.config.to_plain())}
    scores = {"metrics": {k: v for k, v in metrics.items() if k not in NOT_PUBLISHED} if metrics else None}
    write_safetensors(folder / WEIGHTS, loaded.model.state_dict(), settings | meaning | scores)
    # smp ignores keys that begin with an underscore.
    architecture = {**getattr(loaded.model, "config", {}), "encoder_weights": None}
    named = {"_model_class": type(loaded.model).__name__, "_hrseg": meaning | scores}
    write_json(folder / CONFIG, architecture | named)
    if shown is not None:
        pictures.save(shown, folder / PICTURE)
    card = model_card(loaded, name or folder.name, metrics=metrics, licence=licence, picture=shown is not None)
    write_text(folder / CARD, card)
    return folder


def push_to_hub(loaded: TrainedModel, repo: str, *, private: bool = False, **card: Any) -> str:
    """Upload what `save_pretrained` writes to `owner/name` on the hub; returns its address.

    card: metrics, licence and picture, as in `save_pretrained`. The hub's own settings apply: HF_TOKEN or
    `hf auth login` for the account, HF_ENDPOINT for the hub's address.
    Raises HrsegError where the hub cannot be reached or refuses.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = save_pretrained(loaded, Path(temporary) / "model", name=repo.rpartition("/")[2], **card)
        api = huggingface_hub.HfApi()
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Model")
        except Exception as error:  # of requests or of httpx, depending on the version of the hub's client
            reason = first_line(error)
            way_out = f"Can {api.endpoint} be reached, and are you logged in (hf auth login)?"
            raise HrsegError(repo, f"the hub did not accept it: {reason}.", way_out) from error
        return f"{api.endpoint}/{repo}"


def from_pretrained(source: str | Path, *, revision: str | None = None) -> TrainedModel:
    """The model of a folder or of `owner/name` on the hub, with its classes, normalisation and settings.

    Raises WeightsError where there is none, or where it was not written by hrseg.
    """
    if Path(source).is_dir():
        found = str(Path(source) / WEIGHTS)
    else:
        found = f"hf:{str(source).removeprefix('hf:')}" + (f"@{revision}" if revision else "")
    loaded = load_trained_model(found)
    if loaded.classes_assumed:
        raise WeightsError(source, "was not written by hrseg: its classes have no names.")
    return loaded


def model_card(
    loaded: TrainedModel,
    name: str,
    *,
    metrics: Mapping[str, Any] | None = None,
    licence: str | None = None,
    picture: bool = False,
) -> str:
    """A model card in Markdown with the hub's header: what it is, how to use it, scores, classes, licence."""
    header = huggingface_hub.ModelCardData(
        license=licence or "other",
        library_name="hrseg",
        pipeline_tag="image-segmentation",
        tags=["semantic-segmentation", "segmentation-models-pytorch", "pytorch"],
    )
    model, low_high = loaded.config.model, loaded.normalisation.input_range
    lines = [
        f"---\n{header.to_yaml()}\n---\n# {_text(name)}",
        f"Semantic segmentation, {loaded.space.task.value}, {len(loaded.space.classes)} classes: `{model.arch}` over "
        f"`{model.encoder}`, {loaded.step} iterations, by hrseg.",
        *([f"![an image and its labels]({PICTURE})"] if picture else []),
        "## Use\n\n```python\nimport hrseg\n\n"
        f'prediction = hrseg.Predictor("hf:OWNER/{name}")("photo.jpg")\n'
        'prediction.save("predictions")  # .labels, .shares, .overlay()\n```\n\n'
        f'`hrseg.export.hub.from_pretrained("OWNER/{name}")` gives `.model`, `.space` and `.normalisation`; '
        "`import hrseg` and then `smp.from_pretrained` gives the bare model, as segmentation_models_pytorch has it.",
        "## Scores\n\n" + (_score_table(metrics) if metrics else "Not measured."),
        "## Classes\n\n| | name | colour | IoU |\n| --- | --- | --- | --- |\n"
        + "\n".join(_class_rows(loaded, metrics)),
        "## Input\n\nChannel c of a pixel becomes ((value - low) / (high - low) - mean) / std, with "
        f"[low, high] = {[list(pair) for pair in low_high]}, mean = {list(loaded.normalisation.mean)}, "
        f"std = {list(loaded.normalisation.std)}.",
        f"## Licence\n\n{_text(licence) if licence else 'Not stated by whoever published this. Ask before use.'}",
    ]
    return "\n\n".join(lines) + "\n"


def _published(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings without local paths and trackers."""
    kept = {section: values for section, values in settings.items() if section != "track"}
    for section, names in PRIVATE_SETTINGS.items():
        if isinstance(kept.get(section), dict):
            kept[section] = {name: value for name, value in kept[section].items() if name not in names}
    return kept


def _score_table(metrics: Mapping[str, Any]) -> str:
    low, high = metrics.get("miou_interval") or (None, None)
    interval = "" if low is None or high is None else f" ({100 * low:.2f} to {100 * high:.2f})"
    data = f"{_text(data_name(metrics['config']))}, " if "config" in metrics else ""
    on = f"{metrics.get('images', '?')} images of {data}split {_text(metrics.get('split', '?'))}"
    return (
        "| mean IoU % (95 % interval) | pixel accuracy % | measured on | an absent class |\n"
        "| --- | --- | --- | --- |\n"
        f"| {_percent(metrics.get('miou'))}{interval} | {_percent(metrics.get('pixel_accuracy'))} | {on} | "
        f"as {_text(metrics.get('definition', '?'))} |"
    )


def _class_rows(loaded: TrainedModel, metrics: Mapping[str, Any] | None) -> list[str]:
    scored = {entry["name"]: entry.get("iou") for entry in (metrics or {}).get("classes", [])}
    return [
        f"| {index} | {_text(c.name)} | #{bytes(c.color).hex()} | {_percent(scored.get(c.name))} |"
        for index, c in enumerate(loaded.space.classes)
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def _text(text: Any) -> str:
    """Text from elsewhere for a table cell: shown, never interpreted."""
    return html.escape(" ".join(str(text).split())).replace("|", "&#124;")


@torch.inference_mode()
def _segmented(loaded: TrainedModel, path: Path) -> np.ndarray:
    """A picture next to its overlay, with a legend of the classes that occur, uint8 RGB."""
    seen = open_image(path).for_model(loaded.normalisation)
    image = seen.rows(0, seen.size[0]).image
    x = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).unsqueeze(0)
    inference = Inference(loaded.space.task, threshold=loaded.threshold)
    labels = inference.labels(forward(loaded.model, normalise(x, loaded.normalisation)))[0].numpy()
    rgb = pictures.displayable(image, loaded.normalisation)
    pair = pictures.beside([rgb, pictures.overlay(rgb, labels, loaded.space)])
    counted = pictures.pixels_per_class(labels, loaded.space)
    known = pictures.legend_colors(loaded.space, over_image=True)
    colors = {name: known[name] for name, pixels in zip(loaded.space.names, counted, strict=True) if pixels}
    return pictures.stacked([pair, pictures.legend(colors, pair.shape[1])] if colors else [pair])
