"""The confusion matrix as a report shows it."""

from __future__ import annotations

from typing import Any

import numpy as np

from hrseg.metrics.scores import ratio
from hrseg.report.run_folder import NOTHING, EvaluatedRun

MOST = 30  # classes in the matrix


def confusion_matrix_view(run: EvaluatedRun) -> dict[str, Any]:
    """Rows of ground truth over columns of predictions, in shares of each row.

    Of more than MOST classes those with the most wrong pixels are shown. Multilabel: a row a label with the columns
    found, missed, added. Returns names of the columns, rows, and how many classes were left out.
    """
    total, names = run.per_image.total(), run.classes
    if run.multilabel:
        pixels = np.stack([total[:, 1, 1], total[:, 1, 0], total[:, 0, 1]], axis=1)
        shares = ratio(pixels, total[:, 1].sum(axis=-1)[:, None])
        columns = ["found", "missed", "added"]
        order, right = list(range(len(names))), dict.fromkeys(range(len(names)), 0)
    else:
        columns = [*names, NOTHING][: total.shape[1]]
        wrong = total.sum(axis=1) - np.diagonal(total)
        wrong = wrong + total[:, : len(names)].sum(axis=0) - np.diagonal(total)
        order = sorted(np.argsort(-wrong, kind="stable")[:MOST].tolist())
        pixels, shares = total, ratio(total, total.sum(axis=1)[:, None])
        shown = [*order, *range(len(names), total.shape[1])]
        pixels, shares, columns = pixels[:, shown], shares[:, shown], [columns[c] for c in shown]
        right = {k: position for position, k in enumerate(order)}
    rows = [
        {
            "name": names[k],
            "cells": [
                {
                    "share": None if np.isnan(shares[k, c]) else float(shares[k, c]),
                    "pixels": int(pixels[k, c]),
                    "right": c == right[k],
                }
                for c in range(len(columns))
            ],
        }
        for k in order
    ]
    return {"columns": columns, "rows": rows, "left_out": len(names) - len(order), "numbers": len(columns) <= 20}
