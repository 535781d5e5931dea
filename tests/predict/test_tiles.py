"""Blended tiles against the whole image."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hrseg.predict.tiles import blended, tiles


def answer(look, image, tile):
    """The whole answer out of its blocks, each of which must come once."""
    height, width = image.shape[-2:]
    whole, times = None, torch.zeros(height, width)
    for rows, columns, logits in blended(look, lambda top, bottom: image[..., top:bottom, :], (height, width), tile):
        whole = torch.full((*logits.shape[:2], height, width), torch.nan) if whole is None else whole
        whole[..., rows, columns] = logits
        times[rows, columns] += 1
    assert (times == 1).all()
    return whole


@pytest.mark.parametrize("length", [1, 100, 128, 129, 160, 224, 225, 300, 321, 2000])
def test_tiles_start_on_the_grid_and_their_weights_add_up_to_one(length):
    total = torch.zeros(length)
    for tile in tiles(length, 128):
        assert tile.start % 32 == 0 and tile.stop <= length and tile.stop - tile.start <= 128
        assert tile.start <= tile.first <= tile.done <= tile.last <= tile.stop
        total[tile.first : tile.last] += tile.weight
    assert torch.allclose(total, torch.ones(length))


@pytest.mark.parametrize("size", [(640, 130), (97, 500), (333, 417)])
def test_a_network_that_looks_less_far_than_the_context_gives_what_it_gives_for_the_whole_image(size):
    """Stride 32 and odd sides: a tile off the grid, or a stretched one, would differ everywhere."""
    torch.manual_seed(0)
    weight = torch.randn(4, 3, 32, 32) / 50

    def look(x):
        return F.interpolate(F.conv2d(x, weight, stride=32), scale_factor=32.0) + x.sum(1, keepdim=True)

    image = torch.randn(1, 3, *size)
    padded = F.pad(image, (0, -size[1] % 32, 0, -size[0] % 32), mode="replicate")
    expected = look(padded)[..., : size[0], : size[1]]
    assert torch.allclose(answer(look, image, 256), expected, atol=1e-4)


def test_where_tiles_disagree_the_answer_changes_by_at_most_a_step_of_the_fade_per_pixel():
    """Each tile answers with a number of its own, the worst that could meet at a seam: 1 here, 0 there."""
    calls = iter(range(10**6))
    image = torch.zeros(1, 1, 600, 700)
    whole = answer(lambda x: torch.full((1, 1, *x.shape[-2:]), float(next(calls) % 2)), image, 256)
    steps = [whole.diff(dim=dim).abs().max() for dim in (-1, -2)]
    assert max(steps) <= 1 / 16 + 1e-6  # the fade is a sixteenth of a tile long: 16 pixels
    assert whole.max() == 1 and whole.min() == 0
