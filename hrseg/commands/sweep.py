"""The command `tools/sweep.py`: the runs of a sweep file of wandb one after the other on this machine, offline."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hrseg import config as settings
from hrseg.console import command, parser
from hrseg.errors import ConfigError, HrsegError
from hrseg.train.sweep import sweep_trials, trial_command


def _scores_of_run(run_id: str) -> Iterator[float]:
    for path in Path().glob(f"runs/**/{run_id}/metrics.json"):
        yield json.loads(path.read_text(encoding="utf-8"))["miou"]


@command
def main(argv: Sequence[str]) -> int:
    """Do the runs of a sweep file here, offline."""
    arguments = parser(
        "Do the runs of a wandb sweep file on this machine, one after the other, offline.",
        "examples:\n"
        "  tools/sweep.py configs/sweeps/demo.yaml --runs 4\n"
        "  tools/sweep.py configs/sweeps/demo.yaml --dry-run",
    )
    arguments.add_argument("sweep", type=Path, metavar="SWEEP", help="a YAML file in wandb's format")
    arguments.add_argument("settings", nargs="*", metavar="key=value", help="settings of all runs")
    arguments.add_argument("--runs", type=int, metavar="N", help="at most this many; default: run_cap of the file")
    arguments.add_argument("--seed", type=int, default=0, metavar="N", help="of the random draws")
    arguments.add_argument("--dry-run", action="store_true", help="print the commands, do nothing")
    args = arguments.parse_intermixed_args(argv)
    sweep, where = settings.read_yaml(args.sweep), str(args.sweep)
    if not isinstance(sweep, Mapping):
        raise ConfigError(where, "is not a sweep file.", "configs/sweeps/demo.yaml shows one.")
    group, results = f"{args.sweep.stem}-{secrets.token_hex(2)}", []
    planned = sweep_trials(sweep, where, runs=args.runs, seed=args.seed)
    for number, trial in enumerate(planned, 1):
        run_id = secrets.token_hex(4)
        words = [*trial_command(sweep, trial, where), *args.settings]
        shown = " ".join(f"{name}={value}" for name, value in trial.items())
        print(shlex.join(words) if args.dry_run else f"run {number} of {len(planned)}, {run_id}: {shown}", flush=True)
        if not args.dry_run:
            # Leaving the block after Ctrl-C gives the run time to write its checkpoint: it is not killed.
            with subprocess.Popen(words, env=os.environ | {"WANDB_RUN_ID": run_id, "WANDB_RUN_GROUP": group}) as run:
                code = run.wait()
            results.append((next(_scores_of_run(run_id), -1.0) if code == 0 else -1.0, run_id, shown))
    for miou, run_id, shown in sorted(results, reverse=True):
        print(f"{f'mIoU {miou:.4f}' if miou >= 0 else 'no score   '}  {run_id}  {shown}")
    if results and max(results)[0] < 0:
        raise HrsegError(where, "no run reached a score.", "The output of each is above.")
    return 0
