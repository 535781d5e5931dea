"""The runs that a sweep file of wandb asks for, planned without its server."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from hrseg.errors import ConfigError, nearest

METHODS = ("grid", "random")
DISTRIBUTIONS = ("uniform", "int_uniform", "log_uniform_values")


def sweep_trials(
    sweep: Mapping[str, Any], where: str, *, runs: int | None = None, seed: int = 0
) -> list[dict[str, Any]]:
    """The settings of each run, by dotted name, each in all of the file's seeds.

    runs: at most this many, seeds not counted; None: the file's run_cap, which random needs.

    Raises ConfigError for what only wandb's server can do (method bayes), and for parameters that do not make sense.
    """
    seeds = sweep.get("seeds")
    if seeds is not None:
        if not isinstance(seeds, list) or not seeds or any(type(s) is not int for s in seeds):
            raise ConfigError(f"{where}, seeds", "must be a list of whole numbers.", "For example seeds: [0, 1, 2].")
        if isinstance(sweep.get("parameters"), Mapping) and "run.seed" in sweep["parameters"]:
            raise ConfigError(f"{where}, seeds", "stands beside parameters.run.seed.", "Give one of them.")
        methods = sweep_trials({k: v for k, v in sweep.items() if k != "seeds"}, where, runs=runs, seed=seed)
        return [method | {"run.seed": s} for method in methods for s in seeds]
    method, parameters = sweep.get("method"), sweep.get("parameters")
    if method not in METHODS:
        way_out = "Known here: grid, random. Others, such as bayes, need wandb's server: `wandb sweep`."
        raise ConfigError(f"{where}, method", f"'{method}' cannot be done here.", way_out)
    if not isinstance(parameters, Mapping) or not all(isinstance(p, Mapping) for p in parameters.values()):
        raise ConfigError(f"{where}, parameters", "must name settings: 'optim.lr: {values: [0.01, 0.02]}'.")
    cap = runs or sweep.get("run_cap")
    if method == "grid":
        choices = [_choices(p, f"{where}, parameters.{name}") for name, p in parameters.items()]
        combinations = (dict(zip(parameters, values, strict=True)) for values in itertools.product(*choices))
        return list(itertools.islice(combinations, cap))
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


def trial_command(sweep: Mapping[str, Any], trial: Mapping[str, Any], where: str) -> list[str]:
    """The words of one run's command, offline, as wandb's agent would assemble them."""
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
