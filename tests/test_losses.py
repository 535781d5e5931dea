"""Losses: equal to the reference where it has an answer, defined where it has none."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F

from hrseg.benchmark.loss import textbook_ohem
from hrseg.errors import ConfigError
from hrseg.losses import (
    LOSSES,
    TASKS,
    CombinedLoss,
    OhemCrossEntropyLoss,
    bce,
    cross_entropy,
    make_term,
    mcc,
    ohem_cross_entropy,
)
from hrseg.task import LabelSpace, SegmentationClass, Task

# The class weights of HRNet-Semantic-Segmentation's Cityscapes data set.
WEIGHTS = """0.8373 0.918 0.866 1.0345 1.0166 0.9969 0.9754 1.0489 0.8786 1.0023 0.9539 0.9843 1.1116 0.9037 1.0865
1.0955 1.0865 1.1529 1.0507"""
CITYSCAPES_WEIGHTS = torch.tensor([float(weight) for weight in WEIGHTS.split()])
HERE = Path(__file__).parent


def space(classes: int = 4, task: Task = Task.MULTICLASS) -> LabelSpace:
    return LabelSpace(tuple(SegmentationClass(f"class {i}", (i, i, i)) for i in range(classes)), task)


def example(classes: int = 5, seed: int = 0, *, spread: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that need a gradient and a target, a tenth of it ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 24, 40, generator=generator) * spread
    target = torch.randint(0, classes, (2, 24, 40), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.1] = 255
    return logits.requires_grad_(), target


def value_and_gradient(loss, logits: torch.Tensor) -> tuple[float, torch.Tensor]:
    value = loss(logits)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.item(), gradient


def resized_loss(loss, target, logits):
    """The loss of logits that come at a quarter of the target's size, as the reference takes them."""
    return loss(F.interpolate(logits, target.shape[-2:], mode="bilinear", align_corners=False), target)


@pytest.fixture(params=["in the repository", "complete"])
def reference(request) -> Path:
    """Outputs of the reference losses: a few that come with the tests, all of them in the shared folder."""
    return HERE / "data/golden" if request.param == "in the repository" else request.getfixturevalue("golden")


def test_ohem_equals_the_reference(reference):
    arrays, cases = np.load(reference / "loss_ohem.npz"), json.loads((reference / "loss_ohem.json").read_text())
    compared = 0
    for name, case in cases.items():
        logits = torch.from_numpy(arrays[f"logits.{name}"]).requires_grad_()
        target = torch.from_numpy(arrays[f"labels.{name}"])
        loss = OhemCrossEntropyLoss(
            case["thres"], case["min_kept"], weight=CITYSCAPES_WEIGHTS if case["class_weights"] else None
        )
        value, gradient = value_and_gradient(partial(resized_loss, loss, target), logits)
        expected = float(case["ohem"].get("value", "nan"))
        if np.isfinite(expected):
            compared += 1
            assert value == pytest.approx(expected, rel=1e-6), name
            wanted = torch.from_numpy(arrays[f"grad_ohem.{name}"])
            assert (gradient - wanted).abs().max() <= 1e-6 * wanted.abs().max(), name
            assert loss.kept_share.item() == pytest.approx(case["kept_pixels"] / case["valid_pixels"]), name
        else:  # it raises, or answers NaN
            assert value == 0 and not gradient.any(), name
    assert compared == (2 if len(cases) == 2 else 16)


def test_two_outputs_equal_the_reference(reference):
    arrays = np.load(reference / "loss_two_outputs.npz")
    target = torch.from_numpy(arrays["labels"]).long()
    for name, case in json.loads((reference / "loss_two_outputs.json").read_text()).items():
        weights = CITYSCAPES_WEIGHTS.tolist() if case["class_weights"] else None
        if case["loss"] == "ohem":
            main = {"thresh": case["thres"], "min_kept": case["min_kept"], "class_weights": weights}
            aux = {"average": "all", "class_weights": weights}
        else:
            main = aux = {"class_weights": weights}
        kind = "ohem" if case["loss"] == "ohem" else "cross_entropy"
        terms = [(kind, make_term(kind, space(19), main), 1.0, "main")]
        outputs = [torch.from_numpy(arrays["logits_main"]).requires_grad_()]
        if name.startswith("two_outputs"):
            terms.append(("cross_entropy", make_term("cross_entropy", space(19), aux), 0.4, "aux"))
            outputs.append(torch.from_numpy(arrays["logits_aux"]).requires_grad_())
        resized = [
            F.interpolate(x, target.shape[-2:], mode="bilinear", align_corners=case["align_corners"]) for x in outputs
        ]
        total = CombinedLoss(terms)(tuple(resized) if len(resized) == 2 else resized[0], target).total
        assert total.item() == pytest.approx(case["value"], rel=1e-6), name
        for x, gradient in zip(("main", "aux"), torch.autograd.grad(total, outputs), strict=False):
            assert gradient.abs().sum().item() == pytest.approx(case[f"grad_abs_sum_{x}"], rel=1e-5), name


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 1.0, 2.0, 1.5, 0.1])])
@pytest.mark.parametrize(("thresh", "min_kept"), [(0.7, 10), (0.05, 300), (0.0, 1), (0.3, 10**6), (1.0, 5)])
def test_ohem_gradient_is_that_of_the_textbook_bit_for_bit(thresh, min_kept, weight):
    logits, target = example()
    value, gradient = value_and_gradient(
        lambda x: ohem_cross_entropy(x, target, thresh=thresh, min_kept=min_kept, weight=weight), logits
    )
    expected, wanted = value_and_gradient(lambda x: textbook_ohem(x, target, thresh, min_kept, weight), logits)
    assert value == pytest.approx(expected, rel=1e-6)
    assert torch.equal(gradient, wanted)


def test_ohem_selects_by_rank_without_asking_for_the_count_first(monkeypatch):
    logits, target = example()  # as on a GPU, where the answer to a question would have to be waited for
    expected = ohem_cross_entropy(logits, target, thresh=0.7, min_kept=10)
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda _: True))
    assert torch.equal(ohem_cross_entropy(logits, target, thresh=0.7, min_kept=10), expected)


def test_min_kept_as_a_share_is_of_all_pixels_of_the_batch():
    logits, target = example()
    share = ohem_cross_entropy(logits, target, thresh=0.0, min_kept=0.25)
    assert torch.equal(share, ohem_cross_entropy(logits, target, thresh=0.0, min_kept=target.numel() // 4))
    whole = ohem_cross_entropy(logits, target, thresh=0.0, min_kept=1.0)
    assert whole > ohem_cross_entropy(logits, target, thresh=1.0, min_kept=1)  # all but the easiest pixel


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_ohem_shows_what_is_not_finite_only_where_it_counts(value):
    logits, target = example()
    logits = logits.detach()
    logits[0, :, 3, 4] = value
    target[0, 3, 4] = 0
    assert ohem_cross_entropy(logits, target).isnan()
    target[0, 3, 4] = 255
    assert ohem_cross_entropy(logits, target).isfinite()
    assert ohem_cross_entropy(logits, torch.full_like(target, 255)) == 0


@pytest.mark.parametrize(
    "bad", [{"thresh": 1.5}, {"thresh": -0.1}, {"min_kept": 1.5}, {"min_kept": 0.0}, {"min_kept": -1}]
)
def test_ohem_refuses_values_out_of_range(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        OhemCrossEntropyLoss(**bad)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 1.0, 2.0, 1.5, 0.1])])
def test_cross_entropy_is_torchs_own_where_a_pixel_is_valid(weight, smoothing):
    logits, target = example()
    value, gradient = value_and_gradient(
        lambda x: cross_entropy(x, target, weight=weight, label_smoothing=smoothing), logits
    )
    expected, wanted = value_and_gradient(
        lambda x: F.cross_entropy(x, target, weight, ignore_index=255, label_smoothing=smoothing), logits
    )
    assert value == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(gradient, wanted)


def test_bce_counts_only_what_is_not_ignored():
    logits, target = example(1)
    target[target == 0] = torch.randint(0, 2, ((target == 0).sum(),), generator=torch.Generator().manual_seed(1))
    valid = target != 255
    expected = F.binary_cross_entropy_with_logits(
        logits[:, 0][valid], target[valid].float(), pos_weight=torch.tensor(3.0)
    )
    assert bce(logits, target.to(torch.uint8), pos_weight=3.0).item() == pytest.approx(expected.item(), rel=1e-6)
    with pytest.raises(ValueError, match="2 entries for 1 labels"):
        bce(logits, target, pos_weight=[1.0, 2.0])


def test_mcc_counts_only_what_is_not_ignored():
    logits, target = example(1)
    target[:, :5] = 1
    whole = mcc(logits[:, :, :10], target[:, :10].clamp(max=1))
    target[:, :10].clamp_(max=1)
    target[:, 10:] = 255
    assert mcc(logits, target).item() == pytest.approx(whole.item(), rel=1e-6)


def every_fitting_loss():
    for task in Task:
        for name in LOSSES:
            if task in TASKS.get(name, tuple(Task)):
                yield pytest.param(task, name, id=f"{task.value}-{name}")


def task_example(task: Task) -> tuple[torch.Tensor, torch.Tensor, LabelSpace]:
    generator = torch.Generator().manual_seed(3)
    classes = 2 if task is Task.BINARY else 4
    logits = torch.randn(2, space(classes, task).outputs, 12, 16, generator=generator).requires_grad_()
    shape = (2, 4, 12, 16) if task is Task.MULTILABEL else (2, 12, 16)
    target = torch.randint(0, classes if task is Task.MULTICLASS else 2, shape, generator=generator)
    return logits, target.to(torch.uint8), space(classes, task)


@pytest.mark.parametrize(("task", "name"), list(every_fitting_loss()))
def test_every_loss_ignores_what_is_ignored_and_is_zero_without_valid_pixels(task, name):
    logits, target, of = task_example(task)
    loss = CombinedLoss([(name, make_term(name, of, {}), 1.0, "main")])
    target[..., :5] = 255
    value, gradient = value_and_gradient(lambda x: loss(x, target).total, logits)
    assert value > 0 and gradient.any() and not gradient[..., :5].any()

    target[1] = 255  # an image of which nothing counts, beside one that counts
    assert loss(logits, target).total.isfinite()
    value, gradient = value_and_gradient(lambda x: loss(x, torch.full_like(target, 255)).total, logits)
    assert value == 0 and not gradient.any()


def test_lovasz_per_image_survives_an_image_without_valid_pixels():
    logits, target, of = task_example(Task.MULTICLASS)
    target[1] = 255
    value = make_term("lovasz", of, {"per_image": True})(logits, target.long())
    expected = smp.losses.LovaszLoss("multiclass", per_image=True)(logits[:1], target[:1].long())
    assert value.shape == () and torch.equal(value, expected)


class Outputs(NamedTuple):
    main: torch.Tensor
    aux: torch.Tensor


def test_terms_add_up_by_weight_and_tell_their_values():
    logits, target = example(4)
    output = Outputs(logits, torch.randn_like(logits))
    combined = CombinedLoss(
        [
            ("ohem", make_term("ohem", space(), {"min_kept": 100}), 1.0, "main"),
            ("dice", make_term("dice", space(), {}), 0.5, "main"),
            ("cross_entropy", make_term("cross_entropy", space(), {}), 0.4, "aux"),
        ]
    )
    value = combined(output, target.to(torch.uint8))
    assert list(value.terms) == ["ohem", "dice", "cross_entropy_aux"]
    ohem, dice, aux = value.terms.values()
    assert value.total.item() == pytest.approx((ohem + 0.5 * dice + 0.4 * aux).item())
    assert aux.item() == pytest.approx(F.cross_entropy(output.aux, target, ignore_index=255).item())
    assert 0 < value.kept_share <= 1 and not ohem.requires_grad
    with pytest.raises(ConfigError, match="auxiliary"):
        combined(logits, target)


def test_losses_are_computed_in_full_precision():
    logits, target = example(4)
    half = logits.detach().to(torch.bfloat16)
    terms = [(n, make_term(n, space(), {}), 1.0, "main") for n in ("ohem", "dice", "lovasz", "dice")]
    value, expected = CombinedLoss(terms)(half, target), CombinedLoss(terms)(half.float(), target)
    assert value.total.dtype is torch.float32 and torch.equal(value.total, expected.total)
    assert list(value.terms) == ["ohem", "dice", "lovasz", "dice#2"]


def test_class_weights_belong_to_no_checkpoint():
    term = make_term("cross_entropy", space(), {"class_weights": [1, 2, 3, 4]})
    logits, target = example(4)
    expected = F.cross_entropy(logits, target, torch.tensor([1.0, 2.0, 3.0, 4.0]), ignore_index=255)
    assert term(logits, target).item() == pytest.approx(expected.item(), rel=1e-6)
    assert not term.state_dict()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ohm", {}, "Did you mean 'ohem'"),
        ("ohem", {"tresh": 0.7}, "loss.tresh.*Did you mean 'thresh'"),
        ("ohem", {"thresh": "high"}, "loss.thresh.*not 'high'"),
        ("ohem", {"thresh": 7}, "probability"),
        ("cross_entropy", {"average": "some"}, "loss.average"),
        ("cross_entropy", {"class_weights": [1, 2]}, "2 entries, but there are 4 classes"),
        ("cross_entropy", {"class_weights": 3}, "loss.class_weights"),
        ("dice", {"class_weights": [1.0]}, "1 entries, but there are 4 classes"),
        ("dice", {"mode": "binary"}, "loss.mode"),
        ("bce", {}, "not for a multiclass task.*cross_entropy"),
        ("mylab.nowhere:focal", {}, "nowhere|mylab"),
        ("torch.nn:CrossEntropyLoss", {}, "not a function"),
    ],
)
def test_a_wrong_setting_is_named(name, options, message):
    with pytest.raises(ConfigError, match=message):
        make_term(name, space(), options)


def test_a_number_that_yaml_read_as_text_is_a_number():
    assert make_term("ohem", space(), {"thresh": "7e-1"}).thresh == 0.7


def test_a_dotted_path_names_a_loss_outside(tmp_path, monkeypatch):
    (tmp_path / "labloss.py").write_text(
        "def power(logits, target, *, ignore_index, exponent: float = 1.0):\n"
        "    return logits.abs()[:, 0][target != ignore_index].mean() ** exponent\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    logits, target = example(4)
    term = make_term("labloss:power", space(), {"exponent": 2})
    assert torch.equal(term(logits, target), logits.abs()[:, 0][target != 255].mean() ** 2)
    with pytest.raises(ConfigError, match="Did you mean 'exponent'"):
        make_term("labloss:power", space(), {"exponnt": 2})
