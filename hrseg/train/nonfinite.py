"""Iterations whose loss or gradient is not finite: found, named, their batch kept."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hrseg import distributed
from hrseg.data.loader import Batch
from hrseg.errors import HrsegError
from hrseg.train.run import Run
from hrseg.train.step import StepResult, is_finite

log = logging.getLogger(__name__)

SKIPPED_AT_MOST = 10  # iterations in a row
KEPT_AT_MOST = 20  # batches in a run folder
NAMED_AT_MOST = 8  # images in a message


class FiniteWatch:
    """The first iteration whose loss or gradient is not finite, remembered on the device until it is asked for."""

    def __init__(self, run: Run, folder: Path):
        self._run, self._folder, self._in_a_row = run, folder, 0
        self._forget()

    def _forget(self) -> None:
        self._step = torch.zeros((), dtype=torch.int64, device=self._run.plan.device)
        self._loss_is_bad = torch.zeros((), dtype=torch.bool, device=self._run.plan.device)

    def see(self, result: StepResult) -> None:
        """Take notice of the iteration that was just done, without waiting for the device."""
        bad = ~is_finite(result.loss, result.grad_norm, self._run.scaler)
        first = bad & (self._step == 0)
        self._step = torch.where(first, self._run.state.step, self._step)
        self._loss_is_bad = torch.where(first, ~torch.isfinite(result.loss), self._loss_is_bad)

    def record(self) -> dict[str, Any] | None:
        """The line of log.jsonl for a skipped iteration, whose batch is now in failures/; None where all was finite.

        Raises HrsegError where the settings say stop, or after ten in a row: on every process, before anything that
        came of it is scored or saved.
        """
        step = int(distributed.max_over_ranks(self._step))
        if not step:
            self._in_a_row = 0
            return None
        mine, others = bool(self._loss_is_bad), distributed.gather(bool(self._loss_is_bad))
        images, name = self._keep(step, mine or not any(others))
        self._forget()
        self._in_a_row += 1
        reason = f"the {'loss' if any(others) else 'gradient'} is not finite"
        named = ", ".join(images[:NAMED_AT_MOST]) + (", ..." if len(images) > NAMED_AT_MOST else "")
        what = f"{reason} on images {named}." + (f" The batch is in {self._folder / name}." if name else "")
        if self._run.plan.settings.on_nonfinite == "stop":
            way_out = (
                "A lower optim.lr, optim.warmup, train.clip_norm or train.precision=fp32 usually helps; "
                "train.on_nonfinite=skip leaves such iterations out."
            )
            raise HrsegError(f"iteration {step}", what, way_out)
        if self._in_a_row > SKIPPED_AT_MOST:
            what += f" It is so for {self._in_a_row} iterations in a row."
            raise HrsegError(f"iteration {step}", what, "Go on from the last checkpoint with a lower optim.lr.")
        if distributed.is_main():
            log.warning("Iteration %d is skipped: %s", step, what)
        epoch = step / self._run.plan.epoch_length
        return {"step": step, "epoch": epoch, "kind": "skipped", "reason": reason, "images": images, "batch": name}

    def _keep(self, step: int, concerned: bool) -> tuple[list[str], str | None]:
        """Save this process's batch if it is concerned. Returns all such images and the first file."""
        (batch,) = self._run.batches(step - 1, step, workers=0)  # the same again, without keeping every batch
        several = distributed.world_size() > 1
        name = f"failures/iteration_{step}" + (f"_process_{distributed.rank()}" if several else "") + ".npz"
        saved = concerned and save_batch(self._folder / name, batch, step)
        found = distributed.gather((batch.names if concerned else (), name if saved else None))
        return [n for names, _ in found for n in names], next((f for _, f in found if f), None)


def save_batch(path: Path, batch: Batch, step: int) -> bool:
    """Write a batch as npz (image, target, names, indices, step), unless the folder holds as many as it may."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if len(list(path.parent.glob("*.npz"))) >= KEPT_AT_MOST:
        return False
    assert batch.target is not None
    np.savez_compressed(
        path,
        image=batch.image.numpy(),
        target=batch.target.numpy(),
        names=np.array(batch.names),
        indices=np.array(batch.indices),
        step=step,
    )
    return True
