"""Runs a module on data with faults drawn anew, but divides it into folds as the data that the models were trained on.

python -m tests.doctor.other_faults data/spoilt hrseg doctor runs/spoilt_0 ... data.root=data/spoilt_anew --out DIR

The division depends on the masks; without this, models would judge images that they were trained on.
"""

from __future__ import annotations

import runpy
import sys

from hrseg.data import folds
from hrseg.data.cityscapes import Cityscapes

if __name__ == "__main__":
    root, module, *words = sys.argv[1:]
    divide, trained_on = folds.fold_of_each, Cityscapes(root, "train")
    folds.fold_of_each = lambda dataset, number: divide(trained_on, number)
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
