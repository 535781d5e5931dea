from __future__ import annotations

import pytest
import yaml

from hrseg import config as settings
from hrseg.commands.convert import main
from hrseg.errors import ConfigError
from hrseg.weights import reference_configs
from tests.conftest import ROOT


def stages(width: int, modules=(1, 4, 3), blocks: int = 4, bottlenecks=(4, 64)) -> dict:
    """The section MODEL.EXTRA of the reference code."""
    extra = {
        "FINAL_CONV_KERNEL": 1,
        "STAGE1": {
            "NUM_MODULES": 1,
            "NUM_BRANCHES": 1,
            "BLOCK": "BOTTLENECK",
            "NUM_BLOCKS": [bottlenecks[0]],
            "NUM_CHANNELS": [bottlenecks[1]],
            "FUSE_METHOD": "SUM",
        },
    }
    for stage in (2, 3, 4):
        extra[f"STAGE{stage}"] = {
            "NUM_MODULES": modules[stage - 2],
            "NUM_BRANCHES": stage,
            "BLOCK": "BASIC",
            "NUM_BLOCKS": [blocks] * stage,
            "NUM_CHANNELS": [width * 2**r for r in range(stage)],
            "FUSE_METHOD": "SUM",
        }
    return extra


def cityscapes() -> dict:
    return {
        "CUDNN": {"BENCHMARK": True, "DETERMINISTIC": False, "ENABLED": True},
        "GPUS": "(0,1,2,3)",
        "OUTPUT_DIR": "output",
        "LOG_DIR": "log",
        "WORKERS": 4,
        "PRINT_FREQ": 100,
        "DATASET": {
            "DATASET": "cityscapes",
            "ROOT": "data/cityscapes",
            "TRAIN_SET": "list/cityscapes/train.lst",
            "TEST_SET": "list/cityscapes/val.lst",
            "NUM_CLASSES": 19,
        },
        "MODEL": {"NAME": "seg_hrnet", "PRETRAINED": "pretrained.pth", "EXTRA": stages(48)},
        "LOSS": {"USE_OHEM": False, "OHEMTHRES": 0.9, "OHEMKEEP": 131072},
        "TRAIN": {
            "IMAGE_SIZE": [1024, 512],
            "BASE_SIZE": 2048,
            "BATCH_SIZE_PER_GPU": 3,
            "SHUFFLE": True,
            "BEGIN_EPOCH": 0,
            "END_EPOCH": 484,
            "RESUME": True,
            "OPTIMIZER": "sgd",
            "LR": 0.01,
            "WD": 0.0005,
            "MOMENTUM": 0.9,
            "NESTEROV": False,
            "FLIP": True,
            "MULTI_SCALE": True,
            "DOWNSAMPLERATE": 1,
            "IGNORE_LABEL": 255,
            "SCALE_FACTOR": 16,
            "LR_STEP": [90, 110],
        },
        "TEST": {
            "IMAGE_SIZE": [2048, 1024],
            "BASE_SIZE": 2048,
            "BATCH_SIZE_PER_GPU": 4,
            "FLIP_TEST": False,
            "MULTI_SCALE": False,
        },
    }


def ohem(recipe: dict) -> dict:
    recipe["LOSS"]["USE_OHEM"] = True
    return recipe


def small_v1(recipe: dict) -> dict:
    recipe["MODEL"]["EXTRA"] = stages(16, (1, 1, 1), 2, (1, 32))
    return recipe


def ocr(recipe: dict) -> dict:
    recipe["MODEL"] |= {"NAME": "seg_hrnet_ocr", "NUM_OUTPUTS": 2}
    recipe["LOSS"]["BALANCE_WEIGHTS"] = [0.4, 1]
    return recipe


def ade20k(recipe: dict) -> dict:
    recipe["DATASET"] |= {"DATASET": "ade20k", "ROOT": "data/ADEChallengeData2016", "NUM_CLASSES": 150}
    recipe["TRAIN"] |= {
        "IMAGE_SIZE": [520, 520],
        "BASE_SIZE": 520,
        "BATCH_SIZE_PER_GPU": 4,
        "END_EPOCH": 120,
        "LR": 0.02,
        "WD": 0.0001,
        "SCALE_FACTOR": 11,
    }
    recipe["TEST"] |= {"BASE_SIZE": 520}
    return ohem(recipe)


def wide_scale(recipe: dict) -> dict:
    recipe["TRAIN"]["SCALE_FACTOR"] = 16
    return recipe


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        (cityscapes(), "cityscapes"),
        (ohem(cityscapes()), "cityscapes_ohem"),
        (small_v1(cityscapes()), "cityscapes_w18_small_v1"),
        (ocr(cityscapes()), "cityscapes_ocr"),
        (ade20k(cityscapes()), "ade20k"),
        (wide_scale(ocr(ade20k(cityscapes()))), "ade20k_ocr"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_official_recipe_becomes_hrseg_s_own(tmp_path, recipe, name):
    source, out = tmp_path / "official.yaml", tmp_path / "ours.yaml"
    source.write_text(yaml.safe_dump(recipe))
    assert main([str(source), "--out", str(out)]) == 0
    assert settings.load(out) == settings.load(ROOT / "configs" / f"{name}.yaml")


def test_dead_keys_and_what_depends_on_the_branch_are_named(tmp_path, capsys):
    source = tmp_path / "official.yaml"
    source.write_text(yaml.safe_dump(cityscapes()))
    assert main([str(source)]) == 0
    said = capsys.readouterr().out
    assert "# TRAIN.LR_STEP: has no effect there: nothing reads it; the schedule is always poly" in said
    assert "# MODEL.EXTRA.STAGE2.FUSE_METHOD: has no effect there: streams are summed whatever it says" in said
    assert "# CUDNN.BENCHMARK: no setting here" in said
    assert "MODEL.ALIGN_CORNERS is not in the file: False, as branches master and pytorch-v1.1" in said
    assert "momentum is 0.01, as in branches master and pytorch-v1.1; it is 0.1 in HRNet-OCR" in said
    assert "ALIGN_CORNERS is not in the file: True" in reference_configs.translate_config(
        {"MODEL.NAME": "seg_hrnet_ocr"}
    ).to_yaml("x")


def test_a_partial_file_has_the_defaults_of_the_reference_code(tmp_path):
    source = tmp_path / "partial.yaml"
    source.write_text("TRAIN: {LR: 0.00001}\nMODEL: {ALIGN_CORNERS: true}\nNONSENSE: {KEY: 1}\n")
    recipe = reference_configs.read_reference_config(source)
    assert recipe.plain["optim"]["weight_decay"] == 0.0001
    assert recipe.plain["model"] | {"init": ""} == {
        "arch": "hrnetv2",
        "encoder": "hrnetv2_w48_ac",
        "align_corners": True,
        "init": "",
        "bn_momentum": 0.1,
    }
    assert "NONSENSE.KEY" in recipe.left
    assert any("TRAIN.WD is not in the file" in note for note in recipe.notes)
    (tmp_path / "ours.yaml").write_text(recipe.to_yaml("partial.yaml"))
    assert settings.load(tmp_path / "ours.yaml").optim.lr == 1e-5


def test_a_network_that_hrseg_does_not_have_is_refused():
    given = {"MODEL.EXTRA.STAGE4.NUM_CHANNELS": [20, 40, 80, 160]}
    with pytest.raises(ConfigError, match=r"describes no HRNet that hrseg knows \(width 20\)"):
        reference_configs.translate_config(given)


def test_settings_that_are_no_recipe_are_refused(tmp_path, capsys):
    path = ROOT / "configs" / "cityscapes.yaml"
    assert main([str(path)]) == 2
    assert "is not a settings file of the reference code" in capsys.readouterr().err
