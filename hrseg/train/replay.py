"""A past iteration of a run, rebuilt from its nearest checkpoint and drawn: `tools/train.py CONFIG --replay STEP`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from hrseg import build, distributed
from hrseg.build.changes import Change, changed_settings
from hrseg.build.training import training_plan
from hrseg.config import Config
from hrseg.data.loader import Batch
from hrseg.errors import ConfigError, HrsegError
from hrseg.losses import OhemCrossEntropyLoss, pixel_losses
from hrseg.report import pictures
from hrseg.tracking import read_log
from hrseg.train.resume import sound_checkpoints
from hrseg.train.run import Run
from hrseg.train.step import Means, iterate

KEPT, LEFT, IGNORED = (255, 255, 255), (70, 70, 70), (160, 120, 200)  # white, dark grey, violet
EXACT_ANYWAY = ("data.root", "data.workers", "data.check", "run.", "eval.", "train.val_every", "train.checkpoint_every",
                "train.log_every", "train.on_nonfinite")  # fmt: skip


@dataclass(frozen=True)
class Replayed:
    """One process's part of an iteration. pixel_loss: float32 [N, H, W]. kept: bool [N, H, W], None without OHEM."""

    batch: Batch
    figures: dict[str, float]  # as in log.jsonl
    pixel_loss: np.ndarray
    kept: np.ndarray | None


def replay(config: Config, folder: Path, step: int) -> dict[str, Any]:
    """Do iteration `step` (as log.jsonl counts) once more, leave it in <folder>/replay/step_<step>/ and print a table.

    From the checkpoint before it the run trains forward, in silence; nothing else in the folder is touched.
    Returns what is written as step.json. Raises HrsegError where there is no run, or no such iteration.
    """
    device = build.device(config.run)
    with distributed.process_group(device):
        if not (folder / "config.yaml").exists():
            raise HrsegError(folder, "holds no run.", "Name its config, or its folder by run.dir=.")
        points = sound_checkpoints(folder / "checkpoints")
        changed = changed_settings(points[0].saved, config) if points else []
        _require_as_many_processes(changed)
        before = max((p for p in points if p.saved["step"] < step), key=lambda p: p.saved["step"], default=None)
        del points
        saved = before.saved if before else None
        run = Run(training_plan(config, device, saved, check=False), saved)
        origin = f"{before.path.name}, iteration {run.state.step}" if before else "its beginning"
        del before, saved
        if not 0 < step <= run.plan.iterations:
            raise ConfigError(f"--replay {step}", f"the run has iterations 1 to {run.plan.iterations}.")
        replayed = _again(run, step)
        target = folder / "replay" / f"step_{step}"
        summary = {
            "step": step,
            "epoch": step / run.plan.epoch_length,
            "from": origin,
            "changed": [str(c) for c in changed if not c.setting.startswith(EXACT_ANYWAY)],
            "replayed": replayed.figures,
            "logged": _logged(folder, step),
            "images": [row for rows in distributed.gather(_rows(run, replayed, step)) for row in rows],
        }
        target.mkdir(parents=True, exist_ok=True)
        _draw(run, replayed, target)
        if distributed.is_main():
            (target / "step.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
            print(_text(summary, target))
        distributed.barrier()
    return summary


def _require_as_many_processes(changed: list[Change]) -> None:
    for change in changed:
        if change.setting == "processes":
            what = (
                f"the run had {change.before} processes, this is {change.now}: batch norm and OHEM saw other batches."
            )
            raise ConfigError("--replay", what, f"torchrun --nproc-per-node={change.before} tools/train.py ...")


def _again(run: Run, step: int) -> Replayed:
    """Train up to the iteration before, then do this one under observation."""
    seen: list[tuple[Tensor, Tensor]] = []

    def observe(_module: Any, inputs: tuple[Any, Tensor], _output: Any) -> None:
        output, target = inputs
        main = output[0] if isinstance(output, tuple) else output
        seen.append((main.detach(), target.detach()))

    first = run.state.step
    for batch in tqdm(run.batches(first, step), total=step - first, desc="going forward", unit="it", leave=False,
                      disable=not distributed.is_main(), dynamic_ncols=True):  # fmt: skip
        hook = run.module.criterion.register_forward_hook(observe) if run.state.step == step - 1 else None
        result = iterate(run, batch)
        if result.stepped:
            run.means.add(result)
        figures = run.means.read() if run.is_due(run.plan.settings.log_every) else None
    if figures is None or not result.stepped:  # an iteration without a record: its own
        alone = Means()
        alone.add(result)
        figures = alone.read()
    assert hook is not None
    hook.remove()
    ohem = next((term for term in run.module.criterion.terms if isinstance(term, OhemCrossEntropyLoss)), None)
    with torch.no_grad():
        pixel_loss = torch.cat([pixel_losses(logits, target, run.plan.space) for logits, target in seen])
        kept = torch.cat([ohem.kept(logits, target) for logits, target in seen]) if ohem else None
    return Replayed(batch, figures, pixel_loss.cpu().numpy(), None if kept is None else kept.cpu().numpy())


def _logged(folder: Path, step: int) -> dict[str, Any]:
    """The record of the iteration; empty where none was written."""
    path = folder / "log.jsonl"
    records = read_log(path) if path.exists() else []
    return next((r for r in records if r["kind"] == "train" and r["step"] == step), {})


def _ignored(run: Run, target: np.ndarray) -> np.ndarray:
    """bool [N, H, W]: pixels without any label to learn from."""
    ignored = target == run.plan.space.ignore_index
    return ignored.all(1) if ignored.ndim == 4 else ignored


def _rows(run: Run, replayed: Replayed, step: int) -> list[dict[str, Any]]:
    """A row an image of this process's batch."""
    batch = replayed.batch
    assert batch.target is not None
    ignored = _ignored(run, batch.target.numpy())
    rows = []
    for i, name in enumerate(batch.names):
        valid = ~ignored[i]
        losses = replayed.pixel_loss[i][valid]
        row = {
            "name": name,
            "index": int(batch.indices[i]),
            "loss": float(losses.mean()) if losses.size else 0.0,
            "loss_max": float(losses.max()) if losses.size else 0.0,
            "labelled": float(valid.mean()),
        }
        if replayed.kept is not None:
            row["kept"] = float(replayed.kept[i].sum() / max(1, valid.sum()))
        rows.append(row)
    return rows


def _draw(run: Run, replayed: Replayed, target: Path) -> None:
    """Each image of the batch: as stored, as the network met it, its labels, loss and kept pixels; and the arrays."""
    batch, losses, kept = replayed.batch, replayed.pixel_loss, replayed.kept
    assert batch.target is not None
    labels, ignored = batch.target.numpy(), _ignored(run, batch.target.numpy())
    finite = losses[np.isfinite(losses) & ~ignored]
    top = max(1e-6, float(np.quantile(finite, 0.99))) if finite.size else 1.0
    first = distributed.rank() * len(batch.names)
    for i, name in enumerate(batch.names):
        met = pictures.displayable(batch.image[i].permute(1, 2, 0).numpy(), run.plan.normalisation)
        stored = pictures.displayable(run.plan.train_set[batch.indices[i]].image, run.plan.normalisation)
        width = round(stored.shape[1] * met.shape[0] / stored.shape[0])
        parts = {
            "stored": cv2.resize(stored, (width, met.shape[0]), interpolation=cv2.INTER_AREA),
            "input": met,
            "labels": pictures.overlay(met, labels[i], run.plan.space),
            f"loss 0-{top:.2g}": _heat(losses[i], ignored[i], top),
        }
        if kept is not None:
            picture = np.where(kept[i][..., None], KEPT, LEFT).astype(np.uint8)
            picture[ignored[i]] = IGNORED
            parts["kept"] = picture
        panel = pictures.beside([pictures.titled(picture, title) for title, picture in parts.items()])
        safe = re.sub(r"[^\w.-]", "_", name.replace("/", "__"))
        pictures.save(panel, target / f"{first + i:02}_{safe}.png")
    arrays = {"image": batch.image.numpy(), "target": labels, "loss": losses}
    if kept is not None:
        arrays["kept"] = kept
    suffix = f"_process_{distributed.rank()}" if distributed.world_size() > 1 else ""
    np.savez_compressed(target / f"batch{suffix}.npz", names=np.array(batch.names), **arrays)  # type: ignore[arg-type]


def _heat(values: np.ndarray, ignored: np.ndarray, top: float) -> np.ndarray:
    """uint8 RGB [H, W, 3]: black to yellow from 0 to `top`, also what is not finite; violet what is ignored."""
    shares = np.clip(np.nan_to_num(values / top, nan=1.0, posinf=1.0), 0, 1)
    picture = cv2.applyColorMap((shares * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1].copy()
    picture[ignored] = IGNORED
    return picture


def _text(summary: dict[str, Any], target: Path) -> str:
    """The table that is printed."""
    lines = [f"iteration {summary['step']} (epoch {summary['epoch']:.2f}), from {summary['from']}"]
    if summary["changed"]:
        lines += ["NOT AS IT WAS, for these settings have changed:", *(f"  {change}" for change in summary["changed"])]
    lines.append(f"{'':18}{'replayed':>14}{'logged':>14}")
    for name, value in summary["replayed"].items():
        logged = summary["logged"].get(name)
        verdict = "" if logged is None else "  equal" if logged == value else f"  differs by {abs(logged - value):.2g}"
        lines.append(f"{name:18}{value:14.7g}{'-' if logged is None else f'{logged:.7g}':>14}{verdict}")
    columns = [c for c in ("loss", "loss_max", "kept", "labelled") if c in summary["images"][0]]
    lines.append(f"{'image':30}{'index':>8}" + "".join(f"{c:>10}" for c in columns))
    for row in summary["images"]:
        lines.append(f"{row['name'][-29:]:30}{row['index']:8}" + "".join(f"{row[c]:10.4f}" for c in columns))
    return "\n".join([*lines, f"pictures and arrays: {target}/"])
