"""Cityscapes' own evaluation as a program for its own environment, with the numpy it was written for.

It reads two lists of files, [predictions, masks], from one line of JSON. For every further line it evaluates them and
writes one line of JSON with the wall and CPU seconds this took, and the scores. Imports are not counted.
"""

import json
import sys
import time


def main() -> None:
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as evaluation

    evaluation.args.quiet, evaluation.args.JSONOutput = True, False
    predictions, masks = json.loads(sys.stdin.readline())
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        scores = evaluation.evaluateImgLists(predictions, masks, evaluation.args)
        seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps({"seconds": seconds, "scores": scores}), flush=True)


if __name__ == "__main__":
    main()
