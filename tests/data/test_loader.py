import gc
import multiprocessing
import pickle
import tracemalloc

import numpy as np
import pytest
import torch

from hrseg.build import train_transform
from hrseg.config import AugmentConfig
from hrseg.data.dataset import Dataset
from hrseg.data.loader import (
    Normalise,
    TrainSampler,
    TrainSet,
    eval_loader,
    iterations_per_epoch,
    normalise,
    target_type,
    train_loader,
)
from hrseg.data.resize import resize_short_side
from hrseg.errors import DataError
from hrseg.task import LabelSpace, Normalisation, Sample, SegmentationClass

SPACE = LabelSpace(tuple(SegmentationClass(f"class {i}", (i, i, i)) for i in range(5)))
AUGMENT = AugmentConfig(
    scale=(0.5, 2.0),
    crop=(24, 32),
    max_class_share=0.7,
    jitter={"brightness": 0.3, "hue": 0.1},
    extra=[{"name": "GaussNoise", "p": 0.5}, {"name": "Rotate", "p": 0.5}],
)


class Noise(Dataset):
    """A data set in memory: sizes, a type and a place that cannot be read."""

    def __init__(self, sizes, dtype=np.uint8, channels=3, space=SPACE, bad=None, labels=True):
        self.sizes, self.dtype, self.channels, self.space, self.bad, self.labels = (
            *(sizes, dtype, channels, space),
            *(bad, labels),
        )

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        if index == self.bad:
            raise DataError(f"images/{index}.png", "cannot be read.", "Is it whole?")
        rng = np.random.default_rng(index)
        height, width = self.sizes[index]
        image = (rng.random((height, width, self.channels)) * (1 if self.dtype == np.float32 else 255)).astype(
            self.dtype
        )
        target = rng.integers(0, 5, (height, width)).astype(np.int64) if self.labels else None
        return Sample(image, target, f"image {index}")


def same(one, other):
    return torch.equal(one.image, other.image) and torch.equal(one.target, other.target) and one[2:] == other[2:]


def loader(workers=0, **settings):
    settings = {"batch_size": 3, "steps": 6, "seed": 7} | settings
    return train_loader(Noise([(30, 40)] * 10), train_transform(AUGMENT, SPACE), workers=workers, **settings)


def test_batches_do_not_depend_on_the_number_of_workers():
    alone, helped = list(loader()), list(loader(workers=2))
    assert len(alone) == 6 and all(map(same, alone, helped))
    assert alone[0].image.shape == (3, 3, 24, 32) and alone[0].image.dtype == alone[0].target.dtype == torch.uint8


def test_a_sample_is_a_function_of_seed_epoch_and_index_whatever_came_before():
    def fresh(seed=7):
        return TrainSet(Noise([(30, 40)] * 10), train_transform(AUGMENT, SPACE), seed)

    used = fresh()
    for key in ((0, 3), (5, 5), (1, 3)):
        used[key]
    assert torch.equal(used[2, 3].image, fresh()[2, 3].image)
    others = [fresh()[3, 3], fresh(8)[2, 3], fresh(-7)[2, 3]]
    assert not any(torch.equal(used[2, 3].image, other.image) for other in others)


def test_a_loader_leaves_the_global_random_states_alone():
    torch.manual_seed(0)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    list(loader(steps=2))
    list(eval_loader(Noise([(8, 8)] * 2)))
    assert torch.equal(state, torch.get_rng_state()) and (np.random.get_state()[1] == numpy_state).all()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_the_data_keeps_its_type_and_sentence_out_of_a_worker(workers):
    with pytest.raises(DataError, match=r"^images/2\.png: cannot be read\. Is it whole\?$"):
        list(eval_loader(Noise([(8, 8)] * 4, bad=2), workers=workers))


def test_an_error_lets_the_workers_go():
    before = set(multiprocessing.active_children())
    with pytest.raises(DataError):
        list(eval_loader(Noise([(8, 8)] * 4, bad=2), workers=1))
    assert set(multiprocessing.active_children()) <= before


def test_images_of_different_size_in_a_training_batch_are_an_error_with_a_way_out():
    transform = train_transform(AugmentConfig(), SPACE)
    with pytest.raises(DataError, match=r"8 x 9 pixels with 3 channels.*augment\.crop"):
        list(train_loader(Noise([(8, 8), (8, 9)]), transform, batch_size=2, steps=1))


def test_a_split_without_labels_cannot_be_learned_from_but_predicted():
    unlabelled = Noise([(8, 8)] * 2, labels=False)
    with pytest.raises(DataError, match="has no labels"):
        list(train_loader(unlabelled, train_transform(AugmentConfig(), SPACE), batch_size=1, steps=1))
    assert [batch.target for batch in eval_loader(unlabelled)] == [None, None]


def test_a_reader_can_be_sent_to_a_spawned_worker():
    reader = TrainSet(Noise([(30, 40)] * 2), train_transform(AUGMENT, SPACE), 7)
    assert torch.equal(pickle.loads(pickle.dumps(reader))[0, 1].image, reader[0, 1].image)


def test_memory_stays_flat_over_many_samples():
    reader = TrainSet(Noise([(16, 16)] * 4), train_transform(AugmentConfig(crop=(8, 8)), SPACE), 0)
    for step in range(50):
        reader[step, step % 4]
    tracemalloc.start()
    for step in range(400):
        reader[step, step % 4]
    gc.collect()
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 20_000  # 50 bytes a sample


def keys(length, rank=0, world_size=1, **settings):
    settings = {"batch_size": 2, "steps": 40, "seed": 1} | settings
    return list(TrainSampler(length, rank=rank, world_size=world_size, **settings))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_index_comes_once_an_epoch_over_all_ranks_but_for_the_dropped_rest(world_size):
    length, images = 25, 2 * world_size
    per_epoch = iterations_per_epoch(length, images)
    ranks = [keys(length, rank, world_size) for rank in range(world_size)]
    for epoch in range(40 // per_epoch):
        steps = slice(epoch * per_epoch, (epoch + 1) * per_epoch)
        seen = [key for rank in ranks for batch in rank[steps] for key in batch]
        assert {e for e, _ in seen} == {epoch}
        assert len({index for _, index in seen}) == len(seen) == length // images * images


def test_the_global_batch_is_the_same_for_any_split_over_ranks():
    together = keys(25, batch_size=4)
    halves = zip(keys(25, 0, 2), keys(25, 1, 2), strict=True)
    assert [sorted(one + other) for one, other in halves] == [sorted(batch) for batch in together]


def test_orders_differ_between_epochs_and_seeds():
    one, other = (keys(20, seed=seed, batch_size=20, steps=2) for seed in (1, 2))
    orders = [tuple(index for _, index in batch) for batch in one + other]
    assert len(set(orders)) == 4


def test_a_start_step_equals_skipping():
    assert keys(25, start_step=17) == keys(25)[17:]
    resumed = list(loader(start_step=4))
    assert all(map(same, resumed, list(loader())[4:])) and len(resumed) == 2


def test_a_set_smaller_than_a_batch_runs_on_into_the_next_epochs():
    batches = keys(3, batch_size=4, steps=3)
    in_order = [key for batch in batches for key in batch]
    assert [epoch for epoch, _ in in_order] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert all(sorted(i for _, i in in_order[n : n + 3]) == [0, 1, 2] for n in range(0, 12, 3))


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_evaluation_sees_each_image_once_over_all_ranks(world_size):
    for length in (0, 1, 5, 8):
        data = Noise([(4, 4)] * length)
        loaders = [eval_loader(data, rank=r, world_size=world_size, batch_size=2) for r in range(world_size)]
        seen = [index for each in loaders for batch in each for index in batch.indices]
        assert sorted(seen) == list(range(length)) and sum(each.images for each in loaders) == length


def test_evaluation_batches_only_neighbours_of_equal_size_and_keeps_targets():
    data = Noise([(8, 8), (8, 8), (8, 9), (16, 16), (16, 16), (8, 8)])
    batches = list(eval_loader(data, batch_size=3, short_side=4, workers=1))
    assert [batch.indices for batch in batches] == [(0, 1), (2,), (3, 4), (5,)]
    assert [tuple(batch.image.shape[-2:]) for batch in batches] == [(4, 4), (4, 5), (4, 4), (4, 4)]
    for batch in batches:
        for place, name, target in zip(batch.indices, batch.names, batch.target, strict=True):
            assert name == data[place].name and np.array_equal(target.numpy(), data[place].target)


def test_an_eval_loader_can_be_read_again():
    images = eval_loader(Noise([(8, 8)] * 3), workers=1)
    assert [b.names for b in images] == [b.names for b in images] == [("image 0",), ("image 1",), ("image 2",)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_images_keep_their_type_from_file_to_normalised(dtype):
    data = Noise([(8, 8)] * 2, dtype, channels=5)
    (batch,) = eval_loader(data, batch_size=2, workers=1)
    assert batch.image.dtype == torch.from_numpy(np.zeros(1, dtype)).dtype
    assert np.array_equal(batch.image[1].numpy().transpose(1, 2, 0), data[1].image)
    assert normalise(batch.to("cpu").image, Normalisation((0.5,) * 5, (0.2,) * 5, ((0.0, 255.0),) * 5)).shape[1] == 5


def test_label_types_hold_every_class_and_the_ignore_index():
    def space(classes, ignore):
        return LabelSpace((SegmentationClass("", (0, 0, 0)),) * classes, ignore_index=ignore)

    assert [target_type(space(*s)) for s in ((19, 255), (256, 255), (19, -1), (300, 255), (2, 65535))] == [
        *(np.uint8, np.uint8, np.int16, np.int16, np.int32)
    ]


def test_resize_short_side_keeps_type_aspect_and_values():
    for dtype in (np.uint8, np.uint16, np.float32):
        image = np.full((30, 45, 7), 200, dtype)
        image[..., 3] = 100
        resized = resize_short_side(image, 20)
        assert resized.shape == (20, 30, 7) and resized.dtype == dtype
        assert (resized[..., 3] == 100).all() and (resized[..., 4] == 200).all()
    assert resize_short_side(image, 30) is image


@pytest.mark.parametrize(
    ("dtype", "ranges"),
    [
        (np.uint8, ((0, 255), (0, 255), (0, 128))),
        (np.uint16, ((0, 65535), (0, 4095), (1000, 3000))),
        (np.float32, ((0, 1), (-1, 1), (270, 300))),
    ],
)
def test_normalise_is_the_two_step_formula(dtype, ranges):
    normalisation = Normalisation(input_range=ranges)
    rng = np.random.default_rng(0)
    values = np.stack([rng.uniform(max(low, 0), high, (2, 50, 50)) for low, high in ranges], 1).astype(dtype)
    low, high = (np.reshape(bound, (3, 1, 1)) for bound in np.array(ranges, float).T)
    mean, std = (np.reshape(v, (3, 1, 1)) for v in (normalisation.mean, normalisation.std))
    expected = ((values.astype(float) - low) / (high - low) - mean) / std
    image = torch.from_numpy(values)
    before = image.clone()
    result = Normalise(normalisation)(image)
    assert result.dtype == torch.float32 and torch.equal(image, before)
    assert np.abs(result.numpy() - expected).max() <= 1e-6 * np.abs(expected).max()
