import random
import warnings

import albumentations as A
import cv2
import numpy as np
import pytest

from hrseg.build import train_transform
from hrseg.config import AugmentConfig
from hrseg.data.transforms import TRANSFORMS, Augmentation, ChannelJitter, RandomWindow, largest_class_share
from hrseg.errors import ConfigError, DataError
from hrseg.task import LabelSpace, Sample, SegmentationClass, Task

CLASSES = tuple(SegmentationClass(f"class {i}", (i, i, i)) for i in range(5))
SPACE = LabelSpace(CLASSES)
MULTILABEL = LabelSpace(CLASSES, Task.MULTILABEL)


def blocks(height=96, width=128, channels=3, dtype=np.uint8, block=32):
    """Blocks of classes 1 to 4; the image has 10 times the class in every channel."""
    classes = np.random.default_rng(0).integers(1, 5, (-(-height // block), -(-width // block)))
    target = classes.repeat(block, 0).repeat(block, 1)[:height, :width].astype(np.uint8)
    image = np.repeat(target[..., None] * 10, channels, axis=2).astype(dtype)
    return Sample(image / np.float32(255) if dtype == np.float32 else image, target, "blocks")


def augment(sample, seed=0, space=SPACE, **settings):
    channels, dtype = sample.image.shape[2], sample.image.dtype
    transform = train_transform(AugmentConfig(**settings), space, channels=channels, dtype=dtype)
    return transform(sample, np.random.default_rng(seed))


def refusal(settings, **kind):
    with pytest.raises(ConfigError) as refused, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train_transform(AugmentConfig(**settings), SPACE, **kind)
    return str(refused.value)


def test_stepped_scale_draws_every_step_alike_and_both_ends():
    window, rng = RandomWindow(Augmentation(scale=(0.5, 2.1), scale_step=0.1), 255), np.random.default_rng(0)
    scales, counts = np.unique(np.round([window.random_scale(rng) for _ in range(3400)], 6), return_counts=True)
    assert scales.tolist() == [round(0.5 + i / 10, 6) for i in range(17)]
    assert counts.min() > 150 and counts.max() < 250  # of 200


def test_scale_without_a_step_takes_any_value_of_the_range():
    window, rng = RandomWindow(Augmentation(scale=(0.5, 2.0)), 255), np.random.default_rng(0)
    scales = np.array([window.random_scale(rng) for _ in range(500)])
    assert len(set(scales)) == 500 and 0.5 <= scales.min() < 0.52 and 1.98 < scales.max() <= 2.0


def test_short_side_comes_first_and_the_scale_is_times_that():
    assert augment(blocks(96, 128), short_side=60, flip=0).target.shape == (60, 80)
    assert augment(blocks(128, 96), short_side=60, scale=(0.5, 0.5), flip=0).image.shape == (40, 30, 3)
    assert augment(blocks(128, 96), long_side=64, flip=0).image.shape == (64, 48, 3)


@pytest.mark.parametrize("scale", [0.6, 1.7])
def test_scaled_labels_lie_on_their_image_without_a_shift(scale):
    shifts = []
    for place in range(10, 20):
        target = np.zeros((50, 50), np.uint8)
        target[place : place + 11, place : place + 15] = 1
        sample = augment(Sample(np.repeat(target[..., None] * 200, 3, 2), target, ""), scale=(scale, scale), flip=0)
        for axis in (0, 1):
            in_image, in_target = (m.sum(axis, dtype=float) for m in (sample.image[..., 0], sample.target))
            pixels = np.arange(len(in_image))
            shifts.append(np.average(pixels, weights=in_image) - np.average(pixels, weights=in_target))
    assert abs(np.mean(shifts)) < 0.1  # OpenCV's plain nearest neighbour: 0.4


EXTRA_GEOMETRY = [
    {"name": "Rotate", "limit": [20, 40]},
    {"name": "Affine", "shear": [10, 20], "translate_percent": 0.1, "scale": 0.9},
    {"name": "Perspective"},
    {"name": "ElasticTransform", "alpha": 20},
    {"name": "GridDistortion"},
    {"name": "ThinPlateSpline"},
    {"name": "ShiftScaleRotate"},
    {"name": "OpticalDistortion"},
    {"name": "VerticalFlip"},
    {"name": "RandomGridShuffle"},
    {"name": "CropAndPad", "px": [10, 20]},
    {"name": "TimeMasking"},
    {"name": "OneOf", "transforms": [{"name": "VerticalFlip"}, {"name": "Rotate"}]},
]


@pytest.mark.filterwarnings("ignore::UserWarning:albumentations")
@pytest.mark.parametrize("extra", [None, *EXTRA_GEOMETRY], ids=lambda e: e and e["name"])
def test_image_and_mask_move_together_and_what_comes_in_is_ignored(extra):
    extras = [{**extra, "p": 1.0}] if extra else []
    for seed in range(4):
        scene = blocks(192, 256, block=64)
        sample = augment(scene, seed, short_side=160, scale=(0.7, 1.5), crop=(192, 192), extra=extras)
        assert set(np.unique(sample.target)) <= {1, 2, 3, 4, 255}  # never 0, the usual fill
        edges = {"kernel": np.ones((9, 9)), "borderType": cv2.BORDER_CONSTANT, "borderValue": 255}
        inside = cv2.erode(sample.target, **edges) == cv2.dilate(sample.target, **edges)
        inside &= sample.target != 255  # borders are soft in the image, sharp in the mask
        agree = np.abs(sample.image[..., 0].astype(int) - 10 * sample.target)[inside] <= 1
        assert inside.mean() > 0.1 and agree.mean() > 0.99


def test_a_small_image_is_padded_below_and_to_the_right_with_black_and_ignore():
    image, target = np.full((20, 30, 3), 99, np.uint8), np.full((20, 30), 2, np.uint8)
    sample = augment(Sample(image, target, ""), crop=(32, 64), flip=0, jitter={"contrast": 0.9})
    assert sample.image.shape == (32, 64, 3) and (sample.target[:20, :30] == 2).all()
    outside = np.ones((32, 64), bool)
    outside[:20, :30] = False
    assert (sample.target[outside] == 255).all() and not sample.image[outside].any()


def test_dropouts_leave_the_labels_to_be_guessed():
    extra = [{"name": "CoarseDropout", "p": 1.0, "hole_height_range": [0.5, 0.5], "hole_width_range": [0.5, 0.5]}]
    sample = augment(blocks(), flip=0, extra=extra)
    assert (sample.image == 0).any() and (sample.target == blocks().target).all()


def test_a_fill_mask_that_was_asked_for_is_kept():
    extra = [{"name": "Rotate", "limit": [45, 45], "fill_mask": 0, "p": 1.0}]
    assert set(np.unique(augment(blocks(), flip=0, extra=extra).target)) == {0, 1, 2, 3, 4}


def test_no_class_takes_more_than_its_share_of_a_crop():
    target = np.zeros((64, 256), np.uint8)
    target[:, 128:] = np.arange(128) // 8 % 5
    sample = Sample(np.zeros((64, 256, 3), np.uint8), target, "")
    free = [largest_class_share(augment(sample, seed, crop=(48, 48)).target, 255) for seed in range(40)]
    limited = [
        largest_class_share(augment(sample, seed, crop=(48, 48), max_class_share=0.75).target, 255)
        for seed in range(40)
    ]
    assert max(free) == 1.0 and max(limited) <= 0.75


def test_an_image_of_one_class_gives_a_crop_after_ten_tries_all_the_same():
    sample = Sample(np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8), "")
    assert augment(sample, crop=(32, 32), max_class_share=0.5).target.shape == (32, 32)


def test_share_of_a_class_leaves_ignored_pixels_out_and_labels_may_overlap():
    assert largest_class_share(np.array([[0, 0, 1, 255]], np.uint8), 255) == pytest.approx(2 / 3)
    assert largest_class_share(np.full((2, 2), 255, np.uint8), 255) == 1.0
    assert largest_class_share(np.array([[[1, 1, 1, 0]], [[1, 0, 0, 255]]], np.uint8), 255) == 0.75


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 4, 7, 13, 200])
def test_any_type_and_channel_count_keeps_its_type_values_and_labels(dtype, channels):
    image = np.broadcast_to(np.arange(channels) + (40000 if dtype == np.uint16 else 0), (40, 50, channels))
    target = np.ones((40, 50), np.uint8)
    extra = [{"name": "VerticalFlip"}, {"name": "Rotate"}] if channels < 200 else []
    sample = augment(
        Sample(image.astype(dtype), target, ""), scale=(1.5, 1.9), crop=(64, 64), max_class_share=0.9, extra=extra
    )
    assert sample.image.dtype == dtype and sample.image.shape == (64, 64, channels)
    middle = sample.image[20:40, 20:40].astype(float)
    assert np.abs(middle - image[0, 0]).max() < 1e-3  # float32 weights


def test_each_label_of_a_multilabel_target_moves_like_the_classes():
    sample = blocks()
    layers = np.stack([sample.target == label for label in range(5)]).astype(np.uint8)
    layers[:, :4] = 255
    classes = sample.target.copy()
    classes[:4] = 255
    settings = {"scale": (0.5, 1.0), "crop": (96, 96), "extra": [{"name": "Rotate", "p": 1.0}]}
    single = augment(sample._replace(target=classes), 3, **settings)
    multiple = augment(sample._replace(target=layers), 3, MULTILABEL, **settings)
    assert (multiple.image == single.image).all() and multiple.target.shape == (5, 96, 96)
    for label in range(5):
        assert (multiple.target[label] == np.where(single.target == 255, 255, single.target == label)).all()


def test_a_signed_ignore_index_and_many_classes_pass_through():
    space = LabelSpace(tuple(SegmentationClass(str(i), (0, 0, 0)) for i in range(300)), ignore_index=-1)
    target = np.full((20, 20), 299, np.int16)
    sample = augment(
        Sample(np.zeros((20, 20, 3), np.uint8), target, ""), 0, space, crop=(40, 40), extra=[{"name": "Rotate"}]
    )
    assert sample.target.dtype == np.int16 and set(np.unique(sample.target)) == {-1, 299}


@pytest.mark.filterwarnings("ignore::UserWarning:albumentations")
def test_every_albumentations_transform_works_from_its_generator_alone_or_is_refused_in_a_sentence():
    sample = Sample(np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8), blocks(32, 48).target, "")
    works = []
    for name in TRANSFORMS.keys() - {"PiecewiseAffine", "Superpixels"}:  # seconds each
        config = AugmentConfig(crop=(32, 48), extra=[{"name": name}])
        try:
            first, second = (train_transform(config, SPACE) for _ in range(2))
        except ConfigError:
            continue
        for _ in range(3):  # a history that must not matter
            first(sample, np.random.default_rng())
        for seed in range(3):
            one, other = first(sample, np.random.default_rng(seed)), second(sample, np.random.default_rng(seed))
            assert (one.image == other.image).all() and (one.target == other.target).all(), name
        works.append(name)
    assert len(works) > 70 and {"GaussNoise", "MedianBlur", "CoarseDropout", "Affine"} <= set(works)


REFUSED = [
    (
        {"name": "GausianBlur"},
        "augment.extra.0.name: no albumentations transform 'GausianBlur'. Did you mean 'Gaussian",
    ),
    ({"p": 0.5}, "augment.extra.0.name: no albumentations transform 'None'."),
    ({"name": "Rotate", "value": 3}, "augment.extra.0.value: no such setting."),
    ({"name": "Rotate", "limits": 3}, "Did you mean 'limit'?"),
    ({"name": "Resize"}, "augment.extra.0.height: is missing"),
    ({"name": "Blur", "p": 3}, "augment.extra.0: Blur refuses its parameters: p: Input should be less than"),
    ({"name": "Rotate", "mask_interpolation": 1}, "puts values into masks that are not class indices"),
    ({"name": "Rotate", "fill_mask": 77}, "puts values into masks that are not class indices"),
    (
        {"name": "GridElasticDeform", "num_grid_xy": [4, 4], "magnitude": 9, "mask_interpolation": 1},
        "not class indices",
    ),
    ({"name": "Resize", "height": 20, "width": 20}, "turns crops of [64, 96] into [20, 20]"),
    ({"name": "RandomRotate90"}, "turns crops of [64, 96] into [96, 64]"),
    ({"name": "ToFloat"}, "turns uint8 images of 3 channels into float32"),
    ({"name": "ToTensorV2"}, "turns uint8 images of 3 channels into torch.uint8"),
    ({"name": "FDA"}, "FDA requires ['fda_metadata']"),
    ({"name": "OneOf", "transforms": [{"name": "Blurr"}]}, "augment.extra.0.transforms.0.name: no albumentations"),
    ({"name": "OneOf", "transforms": "Blur"}, "augment.extra.0.transforms: must be a list"),
]


@pytest.mark.parametrize(
    ("entry", "sentence"), REFUSED, ids=[f"{e.get('name')}-{i}" for i, (e, _) in enumerate(REFUSED)]
)
def test_an_unfit_extra_is_refused(entry, sentence):
    assert sentence in refusal({"crop": (64, 96), "extra": [entry]})


def test_jitter_of_8_bit_rgb_is_albumentations_own():
    settings, sample = {"brightness": 0.3, "contrast": 0.2, "saturation": 0.4, "hue": 0.1, "p": 1.0}, blocks()
    for seed in range(3):
        rng = np.random.default_rng(seed)
        theirs = A.Compose([A.ColorJitter(**settings)])
        theirs.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        wanted = theirs(image=sample.image)["image"]
        found = augment(sample, seed, flip=0, jitter=settings).image
        assert np.array_equal(found, wanted) and not np.array_equal(found, sample.image)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13, 200])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_jitter_works_on_any_type_and_number_of_channels(dtype, channels):
    sample = blocks(32, 48, channels, dtype)
    jitter = {"brightness": 0.5, "contrast": 0.5, "p": 1.0}
    found = [augment(sample, seed, flip=0, jitter=jitter).image for seed in (0, 0, 1)]
    assert found[0].dtype == dtype and found[0].shape == sample.image.shape
    assert np.array_equal(found[0], found[1]) and not np.array_equal(found[0], found[2])
    assert not np.array_equal(found[0], sample.image)


def test_jitter_multiplies_the_distance_from_the_darkest_value_and_from_the_mean():
    image = np.dstack([np.full((8, 8), 300), np.tile([250, 350], (8, 4))]).astype(np.float32)
    for contrast, brightness in ((0.0, 0.5), (0.5, 0.0)):
        jitter = ChannelJitter(brightness, contrast, low=[200.0, 200.0])
        changed = jitter(image=image)["image"]
        factor = np.ptp(changed[..., 1]) / 100
        middle = 200 + 100 * (factor if brightness else 1)
        assert 0.5 <= factor <= 1.5 and factor != 1
        assert np.allclose(changed[..., 0], middle) and np.isclose(changed[..., 1].mean(), middle)


def test_jitter_keeps_integers_in_the_range_of_their_type():
    rng = np.random.default_rng(0)
    for dtype in (np.uint8, np.uint16):
        image = rng.choice([0, np.iinfo(dtype).max], (16, 16, 4)).astype(dtype)
        for seed in range(5):
            changed = augment(Sample(image, np.zeros((16, 16), np.uint8), ""), seed, flip=0, jitter={"contrast": 1.0})
            assert (changed.image[image == 0] < changed.image[image > 0].min()).all()  # nothing has wrapped around


def test_jitter_of_hue_alone_is_refused_where_there_is_no_hue_and_left_out_beside_others(caplog):
    assert "augment.jitter=null" in refusal({"jitter": {"hue": 0.1}}, dtype=np.uint16)
    with caplog.at_level("INFO"):
        train_transform(AugmentConfig(jitter={"hue": 0.1, "contrast": 0.2}), SPACE, channels=4)
    assert "augment.jitter: hue left out" in caplog.text


def test_colour_transforms_refuse_float_images_that_they_would_clip():
    kelvin = Sample(np.full((8, 8, 3), 280, np.float32), np.zeros((8, 8), np.uint8), "a/b")
    with pytest.raises(DataError, match=r"a/b: colour transforms take float images in \[0, 1\].*augment.extra"):
        augment(kelvin, extra=[{"name": "GaussianBlur"}])
    with pytest.raises(DataError):
        augment(kelvin, extra=[{"name": "OneOf", "transforms": [{"name": "GaussianBlur"}]}])
    assert (augment(kelvin, extra=[{"name": "VerticalFlip"}]).image == 280).all()
