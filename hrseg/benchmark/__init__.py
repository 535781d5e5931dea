"""hrseg and its peers, measured in turns in one process.

A subject is a module of this package with `cases(options) -> Iterator[Case]`; see hrseg/benchmark/measure.py.
"""

SUBJECTS = ("model", "train", "loss", "data", "metric", "eval", "weights", "scaling", "jobs", "importing")
