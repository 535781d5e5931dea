"""Which samples a step takes, and the random numbers of each: functions of the seed and the step, without a state."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

Key = tuple[int, int]  # (epoch, index)
# Purposes of random numbers: the same seed must not give two of them the same numbers.
ORDER, AUGMENT, RARE, UNLABELLED = 0, 1, 2, 3


@lru_cache(maxsize=4)  # a set smaller than a batch needs the orders of neighbouring epochs; and there may be two sets
def _epoch_order(length: int, seed: int, epoch: int, purpose: int) -> np.ndarray:
    numbers = (ORDER, seed, epoch) if purpose == AUGMENT else (ORDER, seed, epoch, purpose)
    return keyed_generator(*numbers).permutation(length)


def keyed_generator(*numbers: int) -> np.random.Generator:
    """Random numbers that follow from a purpose (ORDER, AUGMENT, ...), a seed and whatever else they depend on."""
    return np.random.default_rng([number % 2**64 for number in numbers])  # a seed may be negative


class TrainSampler:
    """Keys (epoch, index) of one process, one batch per step.

    Each epoch is a permutation by (seed, epoch). The global batch of a step is the next stretch of it, of which every
    rank takes its part; the rest of an epoch that does not fill a global batch is dropped. A set smaller than a global
    batch drops nothing: a batch then continues into the next permutations.

    batch_size: images per step of this process. steps: of the whole run, of which start_step are already done.
    purpose: UNLABELLED for images without labels, whose order must not be that of the labelled ones.
    """

    def __init__(
        self,
        length: int,
        *,
        batch_size: int,
        steps: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start_step: int = 0,
        purpose: int = AUGMENT,
    ):
        self.purpose = purpose
        self.length, self.batch_size, self.steps, self.seed = length, batch_size, steps, seed
        self.rank, self.world_size, self.start_step = rank, world_size, start_step

    def __len__(self) -> int:
        return max(0, self.steps - self.start_step)

    def __iter__(self) -> Iterator[list[Key]]:
        for step in range(self.start_step, self.steps):
            yield self.keys(step)

    def keys(self, step: int) -> list[Key]:
        """This rank's part of the global batch of a step."""
        images = self.batch_size * self.world_size
        per_epoch = self.length // images * images or self.length
        first = step * images + self.rank * self.batch_size
        places = (divmod(place, per_epoch) for place in range(first, first + self.batch_size))
        return [
            (epoch, int(_epoch_order(self.length, self.seed, epoch, self.purpose)[place])) for epoch, place in places
        ]
