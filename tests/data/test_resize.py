import cv2
import numpy as np
import pytest

from hrseg.data.resize import image_window, mask_window, resize


def cases(count=60):
    """Random sizes, enlarged and reduced, and random windows of the result, its borders among them."""
    rng = np.random.default_rng(0)
    for number in range(count):
        source = tuple(int(side) for side in rng.integers(1, 90, 2))
        size = tuple(max(1, round(side * rng.uniform(0.4, 2.3))) for side in source)
        height, width = (int(rng.integers(1, side + 1)) for side in size)
        top, left = int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1))
        yield source, size, (0, 0, *size) if number % 10 == 0 else (top, left, height, width)


def noise(size, *channels, dtype=np.uint8):
    values = np.random.default_rng(1).random((*size, *channels))
    return values.astype(np.float32) if dtype == np.float32 else (values * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize("channels", [1, 3, 4, 7])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_window_is_what_resizing_everything_gives_within_a_grey_level(dtype, channels):
    tolerance = {np.uint8: 1, np.uint16: 32, np.float32: 5e-4}[dtype]  # noise of full contrast, places in float32
    for source, size, (top, left, height, width) in cases():
        image = noise(source, channels, dtype=dtype)
        whole = resize(image, size).reshape(*size, channels)
        window = image_window(image, size, (top, left, height, width))
        assert window.dtype == dtype and window.shape == (height, width, channels) and window.flags.c_contiguous
        off = np.abs(window.astype(float) - whole[top : top + height, left : left + width])
        assert off.max() <= tolerance, (source, size)


def test_a_window_of_a_mask_is_that_of_the_resized_mask():
    for source, size, (top, left, height, width) in cases(200):
        mask = noise(source)
        whole = resize(mask, size, cv2.INTER_NEAREST_EXACT)[top : top + height, left : left + width]
        assert np.array_equal(mask_window(mask, size, (top, left, height, width)), whole)
        layers = mask_window(np.stack([mask, mask.T.reshape(source)]), size, (top, left, height, width))
        assert layers.shape == (2, height, width) and np.array_equal(layers[0], whole)


def test_no_more_is_read_than_the_window_needs():
    class Counted:
        def __init__(self, array):
            self.array, self.shape, self.read = array, array.shape, 0

        def __getitem__(self, where):
            part = self.array[where]
            self.read += part.shape[0] * part.shape[1]
            return part

    image, mask = Counted(noise((200, 400), 3)), Counted(noise((200, 400)))
    image_window(image, (400, 800), (100, 200, 40, 80))
    mask_window(mask, (400, 800), (100, 200, 40, 80))
    assert image.read <= 22 * 42 and mask.read <= 20 * 400
