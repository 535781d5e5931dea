"""Reads weights from a path, the Hugging Face hub or an address with a checksum."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import json
import pickle
import re
import shutil
import urllib.request
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import numpy as np
import safetensors
import safetensors.torch
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import Tensor

from hrseg.errors import WeightsError, first_line
from hrseg.files import whole_file
from hrseg.weights import foreign_pickles

Source = str | Path | Sequence[str | Path]

HUB_ID = re.compile(r"(hf:)?(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w./-]+))?")
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
HUB_CONFIG = "config.json"
# What counts in a folder: that of a run, its checkpoints, or a folder in the hub's form; the first that is present.
FOLDER_FILES = ("checkpoints/best.pt", "checkpoints/last.pt", "best.pt", "last.pt", *HUB_FILES)
ENDINGS = (".pt", ".pth", ".pth.tar", ".tar", ".bin", ".ckpt", ".safetensors", ".pdparams", ".pkl")

# Keys under which the tensors lie in a nested file; the first that is present counts. Running averages come before the
# weights they average. mmengine's do not: it swaps them into "state_dict" when it saves.
AVERAGES = (
    *("ema", "state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema_model_state_dict", "ema_state"),
    *("model_ema_state_dict", "swa_state_dict", "swa_model", "averaged_model"),
)
PLAIN_NESTS = ("state_dict", "model_state_dict", "model", "network", "net", "weights", "params", "student", "module")
NESTS = (*AVERAGES, *PLAIN_NESTS)
OF_MMENGINE = "message_hub"
MOST_UNPACKED = 20  # times the size of an archive
MOST_INSTRUCTIONS = 16 * 2**20  # bytes of the pickle that an archive of torch holds beside its tensors
MOST_TENSORS = 100_000
DEEPEST = 8  # nested dictionaries
METADATA_KEY = "hrseg"  # of safetensors: everything beside the tensors, as JSON
SMP_SETTINGS = "smp settings"  # beside the tensors: the content of smp's config.json


class Checkpoint(NamedTuple):
    """The content of a file: tensors by their names in it, and whatever lies beside them (settings, classes, ...)."""

    source: str
    tensors: dict[str, Tensor]
    beside: dict[str, Any]


def read_checkpoint(source: Source) -> Checkpoint:
    """A file's tensors by name, on the CPU; nothing in the file is executed.

    source: a path; `owner/name[@revision]` or `hf:owner/name` on the Hugging Face hub; an address with its checksum,
    `https://...#sha256=...`; several of them whose tensors belong together, as CSAIL's encoder and decoder.
    Raises WeightsError if it is missing, damaged, or asks to run code.
    """
    if not isinstance(source, str | Path):
        return _together([read_checkpoint(s) for s in source])
    path = find_file(source)
    content = _read_content(path)
    try:
        tensors, beside = _unnest(content)
        if "config" not in beside and (smp_settings := _smp_settings(path)):
            beside[SMP_SETTINGS] = smp_settings
    except RecursionError:
        raise WeightsError(path, "its dictionaries are nested without end.", "Is it a checkpoint?") from None
    if not tensors:
        raise WeightsError(path, "holds no tensors by name.", "Is it a checkpoint?")
    return Checkpoint(str(path if Path(source).is_dir() else source), tensors, beside)


def _together(parts: list[Checkpoint]) -> Checkpoint:
    tensors: dict[str, Tensor] = {}
    for part in parts:
        for key in part.tensors:
            if key in tensors:
                raise WeightsError(
                    part.source, f"holds '{key}', which an earlier file holds too.", "Give only one of them."
                )
        tensors |= part.tensors
    return Checkpoint(" + ".join(p.source for p in parts), tensors, parts[0].beside)


def find_file(source: str | Path) -> Path:
    """The local file for a path, a hub id or an address; downloaded if needed. In a folder, what counts there."""
    text = str(source)
    if text.startswith(("http://", "https://")):
        return _download(text)
    path = Path(source)
    if path.is_dir():
        for name in FOLDER_FILES:
            if (path / name).is_file():
                return path / name
        raise WeightsError(
            path, "is a folder.", f"Give the checkpoint in it: there is none of {', '.join(FOLDER_FILES)}."
        )
    if path.exists():
        return path
    match = HUB_ID.fullmatch(text)
    if match and (text.startswith("hf:") or not text.endswith(ENDINGS)):
        return _from_hub(text, match["repo"], match["revision"])
    raise WeightsError(path, "no such file.", "Give a path, a hub id (hf:owner/name) or an address with #sha256=....")


def _from_hub(source: str, repo: str, revision: str | None) -> Path:
    reason: Exception | None = None
    for name in HUB_FILES:
        try:
            path = Path(huggingface_hub.hf_hub_download(repo, name, revision=revision))
            with contextlib.suppress(OSError, ValueError):  # smp's settings lie beside the weights, where it has any
                huggingface_hub.hf_hub_download(repo, HUB_CONFIG, revision=revision)
            return path
        except LocalEntryNotFoundError as error:  # no network: the other name will not be found either
            reason = error
            break
        except (OSError, ValueError) as error:  # the hub's and the network's errors are OSErrors
            reason = reason or error
    first = first_line(reason) if reason else ""
    raise WeightsError(
        source,
        f"cannot be fetched from the Hugging Face hub: {first}",
        "Is the id right? Without a network, fill the cache elsewhere or give the path of a file.",
    )


def _smp_settings(path: Path) -> dict[str, Any] | None:
    """The settings that smp's `save_pretrained` leaves beside a model's weights."""
    if path.name not in HUB_FILES or not (path.parent / HUB_CONFIG).is_file():
        return None
    try:
        content = json.loads((path.parent / HUB_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(path.parent / HUB_CONFIG, f"cannot be read: {first_line(error)}.") from None
    return content if isinstance(content, dict) and isinstance(content.get("_model_class"), str) else None


def _download(address: str) -> Path:
    url, _, fragment = address.partition("#")
    match = re.fullmatch(r"sha256=([0-9a-f]{64})", fragment)
    if not match:
        raise WeightsError(
            address, "an address needs its file's checksum.", "Append #sha256= and the 64 digits of `sha256sum FILE`."
        )
    expected = match[1]
    folder = Path(torch.hub.get_dir()) / "hrseg"
    target = folder / expected
    if target.exists():
        return target
    with whole_file(target) as temporary:
        try:
            with urllib.request.urlopen(url, timeout=60) as response, temporary.open("wb") as file:
                shutil.copyfileobj(response, file)
        except OSError as error:
            raise WeightsError(url, f"cannot be downloaded: {error}.") from error
        actual = sha256(temporary)
        if actual != expected:
            raise WeightsError(url, f"its sha256 is {actual}, not {expected}.", "The file is not the one you mean.")
    return target


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_content(path: Path) -> Any:
    """A file's content; its type is told from the content, not from the name."""
    try:
        with path.open("rb") as file:
            if file.read(9)[8:] == b"{":
                return _read_safetensors(path)
        if zipfile.is_zipfile(path):
            _require_honest_size(path)
            if found := find_damage(path):
                raise WeightsError(path, f"is damaged: {found}.", "Download or copy it again, or use an older one.")
            try:
                with warnings.catch_warnings(action="ignore"):  # of archives that are not torch's
                    return torch.load(path, map_location="cpu", weights_only=True)
            except Exception:  # on damaged files it raises whatever comes up
                pass
        if text := _text(path):
            raise WeightsError(path, f"cannot be read as a checkpoint: it is text that begins with {text!r}.")
        return foreign_pickles.read_pickle(
            path
        )  # reads more kinds, and says what is wrong where it refuses the file too
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        raise WeightsError(
            path,
            f"cannot be read safely: {first_line(error)}.",
            "Where it was made, save the model's state_dict() alone.",
        ) from None
    except Exception as error:  # readers raise whatever comes up on a damaged file
        raise WeightsError(path, f"cannot be read, it may be cut short: {first_line(error)}.") from None


def _text(path: Path) -> str | None:
    """How a file of text begins; None for any other."""
    with path.open("rb") as file:
        start = file.read(4096)
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(
            start
        )  # a character cut in two at the end is not an error
    except UnicodeDecodeError:
        return None
    return text.lstrip()[:20] if all(c.isprintable() or c.isspace() for c in text) else None


def find_damage(path: str | Path) -> str | None:
    """What is wrong with a file of torch.save by its own checksums, which torch.load does not check."""
    try:
        with zipfile.ZipFile(path) as file:
            broken = file.testzip()
    except (zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError, UnicodeDecodeError) as error:
        return first_line(error)
    return broken and f"the checksum of {broken} is wrong"


def _require_honest_size(path: Path) -> None:
    """Refuse an archive that unpacks to far more than its own size: torch does not compress."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
        instructions = max((e.file_size for e in archive.infolist() if e.filename.endswith(".pkl")), default=0)
    if unpacked > MOST_UNPACKED * path.stat().st_size or instructions > MOST_INSTRUCTIONS:
        raise pickle.UnpicklingError(f"it unpacks to {unpacked / 2**20:,.0f} MiB, which no set of weights does")


def _read_safetensors(path: Path) -> dict[str, Any]:
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    return {"model": safetensors.torch.load_file(path), **json.loads(metadata.get(METADATA_KEY, "{}"))}


def _unnest(content: Any, depth: int = 0) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors by name, and what lies beside the dictionary that holds them."""
    if not isinstance(content, Mapping):
        return {}, {}
    if depth > DEEPEST:
        raise RecursionError
    for key in NESTS if OF_MMENGINE not in content else (*PLAIN_NESTS, *AVERAGES):
        if isinstance(content.get(key), Mapping):
            tensors, beside = _unnest(content[key], depth + 1)
            if tensors:
                return tensors, {**beside, **{k: v for k, v in content.items() if k not in NESTS}}
    tensors = {}
    for key, value in content.items():
        if isinstance(value, Mapping):  # {"encoder": {...}, "decoder": {...}}
            tensors |= {f"{key}.{name}": tensor for name, tensor in _unnest(value, depth + 1)[0].items()}
            if len(tensors) > MOST_TENSORS:
                raise RecursionError
        elif isinstance(value, Tensor):
            tensors[str(key)] = value
        elif isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            tensors[str(key)] = torch.from_numpy(value.astype(value.dtype.newbyteorder("=")))
    return tensors, {}
