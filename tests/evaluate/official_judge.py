"""Cityscapes' own judge on files: a function where numpy lets it run, a program for an environment of its own.

It calls numpy.in1d, which numpy 2.4 no longer has.
"""

from __future__ import annotations

import json
import sys

import numpy as np


def judged(predictions: list[str], truths: list[str]) -> dict:
    """What evalPixelLevelSemanticLabeling answers for these pairs of label-id files."""
    if not hasattr(np, "in1d"):
        np.in1d = np.isin
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as judge

    judge.args.quiet, judge.args.JSONOutput = True, False
    return judge.evaluateImgLists(predictions, truths, judge.args)


if __name__ == "__main__":
    print(json.dumps(judged(*json.load(sys.stdin))))
