"""The command `tools/compare.py`: which of two methods is better, from the evidence of their runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hrseg.console import command, counted, parser
from hrseg.errors import ConfigError
from hrseg.files import write_json
from hrseg.made_files import require_replaceable


@command
def main(argv: Sequence[str]) -> int:
    """The paired difference of two methods; for one run, its scores computed again."""
    arguments = parser(
        "Compare two methods by their runs' per_image.npz, image by image. For one run: compute its scores again.",
        "examples:\n"
        "  tools/compare.py runs/ocr runs/plain\n"
        "  tools/compare.py runs/ocr_0 runs/ocr_1 runs/ocr_2 --against runs/plain_0 runs/plain_1 runs/plain_2\n"
        "  tools/compare.py runs/ocr runs/plain --classes --cluster '^[^_]+_[^_]+'\n"
        "  tools/compare.py runs/sweep/* --markdown\n"
        "  tools/compare.py runs/ocr --definition mmseg",
    )
    arguments.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, or their per_image.npz")
    arguments.add_argument("--against", nargs="+", type=Path, default=[], metavar="RUN", help="the other method's runs")
    arguments.add_argument("--definition", help="how an absent class counts: cityscapes, ade20k, hrnet, mmseg or smp")
    arguments.add_argument(
        "--cluster", help="which images belong together: image, or a regular expression on their names; as eval.cluster"
    )
    arguments.add_argument("--classes", action="store_true", help="also the IoU of each class")
    arguments.add_argument("--json", type=Path, metavar="PATH", help="also write the differences there")
    kinds = arguments.add_mutually_exclusive_group()
    for kind, told in (("markdown", "Markdown"), ("latex", "LaTeX (booktabs)"), ("csv", "CSV")):
        kinds.add_argument(f"--{kind}", action="store_true", help=f"a table of all methods as {told}, seeds grouped")
    args = arguments.parse_args(argv)
    if args.json:
        require_replaceable(args.json, "Give another --json.")
    from hrseg.evaluate import comparison
    from hrseg.metrics import PerImage, scores_of_images, table

    table_kind = next((name for name in ("markdown", "latex", "csv") if getattr(args, name)), None)
    if table_kind is not None:
        from hrseg.evaluate import method_table

        folders = [*args.runs, *args.against]
        runs = [PerImage.load(_evidence_file(path)) for path in folders]
        if args.cluster is not None:
            runs = [comparison.with_clusters(run, args.cluster) for run in runs]
        methods = method_table.methods_of_runs(folders, runs, args.definition)
        print(getattr(method_table, f"as_{table_kind}")(methods), end="")
        return 0
    first, second = args.runs, args.against
    if not second and len(first) == 2:
        first, second = first[:1], first[1:]
    if not second and len(first) > 2:
        raise ConfigError(
            "RUN",
            f"{len(first)} runs and no --against.",
            "Give the other method's runs after --against; or --markdown.",
        )
    sides = [[PerImage.load(_evidence_file(path)) for path in side] for side in (first, second)]
    if args.cluster is not None:
        sides = [[comparison.with_clusters(run, args.cluster) for run in side] for side in sides]
    if not second:
        print(table(scores_of_images(sides[0][0], args.definition)))
        return 0
    for name, folders in (("A", first), ("B", second)):
        comparison.warn_of_settings(name, folders)
    differences = comparison.paired_differences(*sides, definition=args.definition, classes=args.classes)
    seeds = (len(first), len(second))
    run = sides[0][0]
    print(f"A: {', '.join(map(str, first))}\nB: {', '.join(map(str, second))}")
    definition = args.definition or run.definition
    images, clusters = counted(len(run), "image"), counted(len(set(run.clusters)), "cluster")
    print(f"{images} in {clusters}; definition {definition}; in percent")
    if seeds == (1, 1) and comparison.count_alike(sides[0][0], sides[1][0]):
        conclusion = "A and B are right and wrong alike in every image: is it one checkpoint, scored twice?"
    else:
        conclusion = comparison.verdict(differences["miou"], seeds)
    print("\n".join(comparison.difference_table(differences, conclusion)))
    if args.json:
        plain = {name: d._asdict() for name, d in differences.items()}
        about = {"first": [str(p) for p in first], "second": [str(p) for p in second], "definition": definition,
                 "clusters": len(set(run.clusters)), "images": len(run)}  # fmt: skip
        write_json(args.json, comparison.without_nan({**about, "differences": plain}))
    return 0


def _evidence_file(path: Path) -> Path:
    return path / "per_image.npz" if path.is_dir() or path.suffix != ".npz" else path
