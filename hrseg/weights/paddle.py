"""PaddleSeg's names of an HRNet's tensors, which count from one, in the spelling of the reference code.

Source: PaddleSeg, paddleseg/models/backbones/hrnet.py, fcn.py and ocrnet.py, release 2.8.
"""

from __future__ import annotations

import re
from collections.abc import Callable

PADDLE: tuple[tuple[str, Callable[[re.Match], str]], ...] = (
    (r"^backbone\.conv_layer1_(\d)\.", lambda m: f"conv{m[1]}|bn{m[1]}."),
    (r"^backbone\.la1\.bb_layer2_(\d+)\.conv(\d)\.", lambda m: f"layer1.{_down(m[1])}.conv{m[2]}|bn{m[2]}."),
    (
        r"^backbone\.la1\.bb_layer2_(\d+)\.conv_down\.",
        lambda m: f"layer1.{_down(m[1])}.downsample.0|1.",
    ),
    (
        r"^backbone\.tr(\d)\.transition_tr\d_layer_(\d)\.",
        # The step of a new stream is nested one level deeper.
        lambda m: f"transition{m[1]}.{_down(m[2])}{'.0' if int(m[2]) == int(m[1]) + 1 else ''}.0|1.",
    ),
    (
        r"^backbone\.st(\d)\.stage_st\d_(\d+)\.branches_func\.bb_st\d_\d+_branch_layer_(\d)_(\d+)\.conv(\d)\.",
        lambda m: f"stage{m[1]}.{_down(m[2])}.branches.{_down(m[3])}.{_down(m[4])}.conv{m[5]}|bn{m[5]}.",
    ),
    (
        r"^backbone\.st(\d)\.stage_st\d_(\d+)\.fuse_func\.residual_st\d_\d+_layer_(\d)_(\d)(?:_(\d))?\.",
        lambda m: (
            f"stage{m[1]}.{_down(m[2])}.fuse_layers.{_down(m[3])}.{_down(m[4])}{'.' + _down(m[5]) if m[5] else ''}.0|1."
        ),
    ),
    (r"^head\.conv_1\.", lambda m: "last_layer.0|1."),
    (r"^head\.cls\.", lambda m: "last_layer.3."),
    (r"^head\.conv3x3_ocr\.", lambda m: "conv3x3_ocr.0|1."),
    (r"^head\.aux_head\.0\.", lambda m: "aux_head.0|1."),
    (r"^head\.aux_head\.1\.", lambda m: "aux_head.3."),
    (
        r"^head\.spatial_ocr\.attention_block\.(f_pixel|f_object)\.(\d)\.",
        lambda m: f"ocr_distri_head.object_context_block.{m[1]}.{2 * int(m[2])}|{2 * int(m[2]) + 1}.0.",
    ),
    (
        r"^head\.spatial_ocr\.attention_block\.(f_down|f_up)\.",
        lambda m: f"ocr_distri_head.object_context_block.{m[1]}.0|1.0.",
    ),
    (r"^head\.spatial_ocr\.conv1x1\.0\.", lambda m: "ocr_distri_head.conv_bn_dropout.0|1.0."),
    (r"^head\.cls_head\.", lambda m: "cls_head."),
)


def _down(one_based: str) -> str:
    return str(int(one_based) - 1)


def reference_name(key: str) -> str:
    """The reference code's name for a PaddleSeg tensor; unknown names are returned unchanged.

    In the table "a.0|1." is the name of a convolution ("a.0.") and of the batch norm after it ("a.1.").
    """
    for pattern, spelling in PADDLE:
        match = re.match(pattern, key)
        if match:
            rest = key[match.end() :]
            start, bar, after = spelling(match).partition("|")
            if bar:
                norm = rest.startswith("_batch_norm.")
                # "x.conv1|bn1." and "x.0|1.": what lies between the last point and the bar is replaced.
                start = f"{start.rpartition('.')[0]}.{after}".removeprefix(".") if norm else f"{start}."
                rest = rest.removeprefix("_batch_norm.").removeprefix("_conv.")
            return start + {"_mean": "running_mean", "_variance": "running_var"}.get(rest, rest)
    return key
