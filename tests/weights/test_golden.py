"""Every network of the reference outputs, in a file as its home writes it, through the public loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrseg import weights
from tests.models.reference import assert_close, reference_input, reference_state


def concatenated(encoder: nn.Module, x: Tensor) -> Tensor:
    finest, *coarser = encoder(x)[-4:]
    return torch.cat([finest, *(F.interpolate(c, size=finest.shape[-2:], mode="bilinear") for c in coarser)], dim=1)


def segmenter(model: Any, x: Tensor) -> dict[str, Tensor]:
    model.upsampling = 1
    output = model.forward_train(x)
    scales = {f"backbone{i}": feature for i, feature in enumerate(model.encoder(x)[-4:])}
    aux = {} if output.aux is None else {"aux": output.aux, "feats": concatenated(model.encoder, x)}
    return {"logits": output.main, **scales, **aux}


def c1(model: Any, x: Tensor) -> dict[str, Tensor]:
    model.upsampling = 4
    full = model(x).softmax(dim=1)
    model.upsampling = 1
    logits = model(x)
    trunk = concatenated(model.encoder, x)
    return {"logits": logits, "log_softmax": logits.log_softmax(dim=1), "prob_full": full, "encoder": trunk}


def classifier(model: Any, x: Tensor) -> dict[str, Tensor]:
    final = model.final_map(x)
    return {"logits": model(x), "prelogits_map": final, "pooled": final.mean(dim=(2, 3))}


def levels(model: Any, x: Tensor) -> dict[str, Tensor]:
    scales = {f"backbone{i}": feature for i, feature in enumerate(model.encoder(x)[-4:])}
    return {f"neck{i}": level for i, level in model(x).items()} | scales


def features(model: Any, x: Tensor) -> dict[str, Tensor]:
    given = model(x)
    return {f"feat{i}": feature for i, feature in enumerate(given[-5:])}


def trunk(model: Any, x: Tensor) -> dict[str, Tensor]:
    return {"feats": concatenated(model, x)}


class Case(NamedTuple):
    name: str
    wrapping: str
    encoder: str
    outputs: Any = segmenter
    options: dict[str, Any] = {}


QUICK = (
    Case("official_v11_w18_small_v1", "official", "hrnetv2_w18_small_v1"),
    Case("official_v11_w18_small_v2", "official", "hrnetv2_w18_small_v2"),
    Case("official_v11_w18", "official", "hrnetv2_w18"),
    Case("timm_hrnet_w18_small_v2_features", "flat", "hrnetv2_w18_small_v2_nearest", features),
    Case("timm_hrnet_w18_small_v2_cls", "flat", "hrnetv2_w18_small_v2_nearest", classifier),
    Case("pose_w32_256x192", "flat", "hrnetv2_w32_nearest", lambda model, x: {"heatmaps": model(x)}),
    Case("det_hrnetv2p_w18", "parts", "hrnetv2_w18_nearest", levels),
    Case("mmseg_fcn_hr18", "mm", "hrnetv2_w18"),
    Case("mmseg_ocrnet_hr18", "mm", "hrnetv2_w18"),
    Case("psa_hrnet_w18_s", "flat", "hrnetv2_w18_psa_s", trunk),
)
LONG = (
    Case("timm_hrnet_w18_features_noincre", "flat", "hrnetv2_w18_nearest", features, {"family": "timm"}),
    Case("official_v11_w48", "official", "hrnetv2_w48"),
    Case("official_ocr_w48_ocr_ac1", "official", "hrnetv2_w48_ac"),
    Case("official_ocr_w48_seg_ac0", "official", "hrnetv2_w48", segmenter, {"align_corners": False}),
    Case("official_ocr_w48_seg_ac1", "official", "hrnetv2_w48_ac", segmenter, {"align_corners": True}),
    Case("timm_hrnet_w18_features", "flat", "hrnetv2_w18_nearest", features),
    Case("timm_hrnet_w48_features", "flat", "hrnetv2_w48_nearest", features),
    Case("timm_hrnet_w18_cls", "flat", "hrnetv2_w18_nearest", classifier),
    Case("timm_hrnet_w48_cls", "flat", "hrnetv2_w48_nearest", classifier),
    Case("det_hrnetv2p_w32", "parts", "hrnetv2_w32_nearest", levels),
    Case("csail_w48_c1_ade150", "two files", "hrnetv2_w48", c1),
    Case("psa_hrnet_w18_p", "flat", "hrnetv2_w18_psa_p", trunk),
    Case("psa_hrnet_w48_ocr_s", "module", "hrnetv2_w48_psa_s"),
    Case("psa_hrnet_w48_ocr_p", "module", "hrnetv2_w48_psa_p"),
    Case("mmseg_fcn_hr48", "mm", "hrnetv2_w48"),
)


def written(golden: Path, case: Case, tmp_path: Path) -> weights.source.Source:
    path = tmp_path / "named_after_nothing.bin"
    if case.wrapping == "two files":
        paths = [tmp_path / part for part in ("encoder", "decoder")]
        for part in paths:
            torch.save(reference_state(golden, case.name, part.name), part)
        return paths
    if case.wrapping == "parts":
        state = {
            f"{part}.{name}": tensor
            for part in ("backbone", "neck")
            for name, tensor in reference_state(golden, case.name, part).items()
        }
        torch.save({"meta": {}, "state_dict": state | {"rpn_head.rpn_conv.bias": torch.zeros(256)}}, path)
        return path
    state = reference_state(golden, case.name)
    if case.wrapping == "official":
        state = {f"model.{name}": tensor for name, tensor in state.items()}
        torch.save(state | {"loss.criterion.weight": torch.ones(19)}, path)
    elif case.wrapping == "mm":
        torch.save({"meta": {"CLASSES": [f"c{i}" for i in range(19)]}, "state_dict": state, "optimizer": {}}, path)
    elif case.wrapping == "module":
        torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, path)
    else:
        torch.save(state, path)
    return path


def quick_and_long(case: Case) -> list[Any]:
    """A case at the small input, and at the larger one in the long form."""
    small = () if case in QUICK else (pytest.mark.long,)
    large = pytest.param(case, "large_input_hw", "half.large.", marks=pytest.mark.long, id=f"{case.name}-large")
    one_size = case.name.startswith("pose")
    return [pytest.param(case, "input_hw", "half.", marks=small, id=case.name), *(() if one_size else (large,))]


@pytest.mark.parametrize(("case", "size", "place"), [p for case in (*QUICK, *LONG) for p in quick_and_long(case)])
def test_a_file_of_its_home_computes_what_it_computed_there(golden, tmp_path, case, size, place):
    found = weights.inspect(written(golden, case, tmp_path), **case.options)
    assert found.encoder == case.encoder
    model = weights.build_model(found)
    expected = np.load(golden / f"{case.name}.npz")
    names = {key.rpartition(".")[2] for key in expected if key.startswith((f"{place}out.", f"{place}sub8."))}
    assert names
    with torch.no_grad():
        given = case.outputs(model, reference_input(*expected[size]))
    for name in sorted(names):
        if f"{place}out.{name}" in expected:
            assert_close(given[name], expected[f"{place}out.{name}"])
        else:
            assert_close(given[name][..., ::8, ::8], expected[f"{place}sub8.{name}"])
