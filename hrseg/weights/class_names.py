"""The classes of a checkpoint that is not hrseg's: from the file, or assumed."""

from __future__ import annotations

from collections.abc import Mapping

from hrseg.data.ade20k import CLASSES as ADE20K
from hrseg.data.cityscapes_labels import CLASSES as CITYSCAPES
from hrseg.task import LabelSpace, SegmentationClass, Task
from hrseg.weights.source import Checkpoint

# The benchmarks whose classes are assumed where a file has that many outputs and no names.
BENCHMARKS = {len(CITYSCAPES): ("Cityscapes", CITYSCAPES), len(ADE20K): ("ADE20K", ADE20K)}


def label_space(checkpoint: Checkpoint, outputs: int) -> tuple[LabelSpace, str]:
    """The classes: from the file (mmsegmentation's have names), else a benchmark's with that many, else numbers.

    Also returns a sentence on what was assumed.
    """
    meta = checkpoint.beside.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    named = meta.get("dataset_meta")
    named = named if isinstance(named, Mapping) else {}
    names = named.get("classes") or meta.get("CLASSES")
    grays = [(v, v, v) for v in (round(255 * (i + 1) / outputs) for i in range(outputs))]
    if isinstance(names, list | tuple) and len(names) == outputs:
        palette = named.get("palette") or meta.get("PALETTE") or ()
        colors = [(int(r), int(g), int(b)) for r, g, b in palette] if len(palette) == outputs else grays
        return LabelSpace(tuple(SegmentationClass(str(n), c) for n, c in zip(names, colors, strict=True))), ""
    if outputs == 1:
        names = (SegmentationClass("background", (0, 0, 0)), SegmentationClass("foreground", (255, 255, 255)))
        return LabelSpace(names, Task.BINARY), "The one class has no names in the file. Assumed: foreground, binary."
    if outputs in BENCHMARKS:
        benchmark, classes = BENCHMARKS[outputs]
        return LabelSpace(classes), f"The {outputs} classes have no names in the file. Assumed: those of {benchmark}."
    numbered = tuple(SegmentationClass(f"class {i}", color) for i, color in enumerate(grays))
    return LabelSpace(numbered), f"The {outputs} classes have no names in the file: they are numbered."
