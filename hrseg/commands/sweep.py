"""A sweep file of wandb without its server: one run after the other on this machine; the command `tools/sweep.py`."""

from __future__ import annotations

import itertools
import json
import math
import os
import secrets
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hrseg import config as settings
from hrseg.console import command, parser
from hrseg.errors import ConfigError, HrsegError, nearest

METHODS = ("grid", "random")
DISTRIBUTIONS = ("uniform", "int_uniform", "log_uniform_values")


def trials(sweep: Mapping[str, Any], where: str, *, runs: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """The settings of each run, by dotted name. runs: at most so many; none: the file's run_cap; random needs one.

    Raises ConfigError for what only wandb's server can do (method bayes), and for parameters that do not make sense.
    """
    method, parameters = sweep.get("method"), sweep.get("parameters")
    if method not in METHODS:
        way_out = "Known here: grid, random. Others, such as bayes, need wandb's server: `wandb sweep`."
        raise ConfigError(f"{where}, method", f"'{method}' cannot be done here.", way_out)
    if not isinstance(parameters, Mapping) or not all(isinstance(p, Mapping) for p in parameters.values()):
        raise ConfigError(f"{where}, parameters", "must name settings: 'optim.lr: {values: [0.01, 0.02]}'.")
    cap = runs or sweep.get("run_cap")
    if method == "grid":
        choices = [_choices(p, f"{where}, parameters.{name}") for name, p in parameters.items()]
        found = (dict(zip(parameters, values, strict=True)) for values in itertools.product(*choices))
        return list(itertools.islice(found, cap))
    if not cap:
        raise ConfigError(f"{where}, run_cap", "random needs a number of runs.", "Set it, or give --runs.")
    rng = np.random.default_rng(seed)
    return [{name: _draw(p, rng, f"{where}, parameters.{name}") for name, p in parameters.items()} for _ in range(cap)]


def _choices(parameter: Mapping[str, Any], where: str) -> list[Any]:
    if "value" in parameter:
        return [parameter["value"]]
    values = parameter.get("values")
    if not isinstance(values, list) or not values:
        raise ConfigError(where, "has no values.", "For example {values: [0.01, 0.02]}.")
    return values


def _draw(parameter: Mapping[str, Any], rng: np.random.Generator, where: str) -> Any:
    if "min" not in parameter:
        values = _choices(parameter, where)
        return values[int(rng.integers(len(values)))]
    low: Any = parameter["min"]
    high: Any = parameter.get("max")
    if not all(isinstance(bound, int | float) for bound in (low, high)) or not low < high:
        raise ConfigError(where, "needs numbers min < max.", "YAML reads 1.0e-3 as a number, but 1e-3 as text.")
    usual = "int_uniform" if isinstance(low, int) and isinstance(high, int) else "uniform"
    kind = parameter.get("distribution", usual)
    if kind == "int_uniform":
        return int(rng.integers(low, high + 1))
    if kind == "log_uniform_values" and low > 0:
        return float(f"{math.exp(rng.uniform(math.log(low), math.log(high))):.4g}")
    if kind == "uniform":
        return float(f"{rng.uniform(low, high):.4g}")
    raise ConfigError(f"{where}.distribution", f"'{kind}' cannot be drawn here.", nearest(str(kind), DISTRIBUTIONS))


def command_line(sweep: Mapping[str, Any], trial: Mapping[str, Any], where: str) -> list[str]:
    """The words of one run's command, as wandb's agent would put them together; offline."""
    macros = {
        "${env}": ["/usr/bin/env"],
        "${interpreter}": ["python"],
        "${program}": [str(sweep.get("program"))],
        "${args_no_hyphens}": [f"{name}={json.dumps(value)}" for name, value in trial.items()],
    }
    given = sweep.get("command")
    if not isinstance(given, list) or "${args_no_hyphens}" not in given:
        raise ConfigError(f"{where}, command", "must be a list with ${args_no_hyphens}: settings are key=value.")
    unknown = [str(w) for w in given if str(w).startswith("${") and w not in macros]
    if unknown:
        raise ConfigError(f"{where}, command", f"{unknown[0]} is not known here.", nearest(unknown[0], macros))
    return [*itertools.chain.from_iterable(macros.get(str(word), [str(word)]) for word in given), "track.wandb=offline"]


def _scores(run_id: str) -> Iterator[float]:
    for path in Path().glob(f"runs/**/{run_id}/metrics.json"):
        yield json.loads(path.read_text(encoding="utf-8"))["miou"]


@command
def main(argv: Sequence[str]) -> int:
    """tools/sweep.py: do the runs of a sweep file here, offline."""
    arguments = parser(
        "Do the runs of a wandb sweep file on this machine, one after the other, offline.",
        "examples:\n"
        "  tools/sweep.py configs/sweeps/demo.yaml --runs 4\n"
        "  tools/sweep.py configs/sweeps/demo.yaml --dry-run",
    )
    arguments.add_argument("sweep", type=Path, metavar="SWEEP", help="a YAML file in wandb's format")
    arguments.add_argument("settings", nargs="*", metavar="key=value", help="settings of all runs")
    arguments.add_argument("--runs", type=int, metavar="N", help="at most so many; default: run_cap of the file")
    arguments.add_argument("--seed", type=int, default=0, metavar="N", help="of the random draws")
    arguments.add_argument("--dry-run", action="store_true", help="print the commands, do nothing")
    args = arguments.parse_intermixed_args(argv)
    sweep, where = settings.read_yaml(args.sweep), str(args.sweep)
    if not isinstance(sweep, Mapping):
        raise ConfigError(where, "is no sweep file.", "configs/sweeps/demo.yaml shows one.")
    group, results = f"{args.sweep.stem}-{secrets.token_hex(2)}", []
    planned = trials(sweep, where, runs=args.runs, seed=args.seed)
    for number, trial in enumerate(planned, 1):
        run_id = secrets.token_hex(4)
        words = [*command_line(sweep, trial, where), *args.settings]
        shown = " ".join(f"{name}={value}" for name, value in trial.items())
        print(shlex.join(words) if args.dry_run else f"run {number} of {len(planned)}, {run_id}: {shown}", flush=True)
        if not args.dry_run:
            # Leaving the block after Ctrl-C gives the run the time to write its checkpoint: it is not killed.
            with subprocess.Popen(words, env=os.environ | {"WANDB_RUN_ID": run_id, "WANDB_RUN_GROUP": group}) as run:
                code = run.wait()
            results.append((next(_scores(run_id), -1.0) if code == 0 else -1.0, run_id, shown))
    for miou, run_id, shown in sorted(results, reverse=True):
        print(f"{f'mIoU {miou:.4f}' if miou >= 0 else 'no score   '}  {run_id}  {shown}")
    if results and max(results)[0] < 0:
        raise HrsegError(where, "no run came to a score.", "What each said stands above.")
    return 0
