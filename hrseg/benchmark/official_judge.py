"""Cityscapes' own judge as a program for an environment of its own, with the numpy it was written for.

It is given two lists of files, [predictions, truths], in one line of JSON, and for every further line evaluates them:
one line of JSON with the seconds this took, of the clock and of the CPU, and the scores. Imports are not counted.
"""

import json
import sys
import time


def main() -> None:
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as judge

    judge.args.quiet, judge.args.JSONOutput = True, False
    predictions, truths = json.loads(sys.stdin.readline())
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        scores = judge.evaluateImgLists(predictions, truths, judge.args)
        seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps({"seconds": seconds, "scores": scores}), flush=True)


if __name__ == "__main__":
    main()
