"""The sky, and what closes the street."""

from __future__ import annotations

import cv2
import numpy as np

from hrseg.toycity.houses import facade_texture
from hrseg.toycity.noise import noise_piece
from hrseg.toycity.street import Street

SKY = 1000.0  # depth: everything else stands in front of it


def draw_sky(street: Street) -> None:
    height, width = street.canvas
    h, w = height // 4, width // 4
    ramp = np.clip(np.arange(h) / (street.horizon / 4), 0, 1)[:, None, None] ** 1.2
    rgb = (1 - ramp) * np.array(street.sky_top) + ramp * np.array(street.sky_low)
    noise = cv2.resize(noise_piece(street.rng, "clouds", 2 * h, 2 * w), (w, h))
    cover = np.clip(noise * 1.4 + street.cloudiness - 0.6, 0, 1)[..., None] * 0.75
    cloud = 0.5 * np.array(street.sky_low) + 0.5 * np.array((244, 243, 242))
    layer = street.layer("sky", SKY, grain=0.0)
    layer.rgb[:] = cv2.resize((rgb * (1 - cover) + cloud * cover).astype(np.float32), (width, height))
    layer.paint[:] = 1
    street.add(layer)


def draw_backdrop(street: Street) -> None:
    """What closes the street: trees or houses."""
    rng, z, x = street.rng, street.end, -70.0
    if rng.random() < 0.5:
        layer, color = street.layer("vegetation", z, grain=0.3), street.pick(street.city.leaves)
        layer.polygon(street.project([(-200, 2, z), (200, 2, z), (200, 0, z), (-200, 0, z)]), street.lit(color))
        for spot in np.arange(-70, 70, 3.5):
            x, r = spot + rng.uniform(-1, 1), rng.uniform(2.0, 5.0)
            tone = street.lit(street.vary(color))
            layer.ellipse(street.project([(x, 2.5, z)])[0], (r * street.scale(z) * 1.3, r * street.scale(z)), tone)
    else:
        layer = street.layer("building", z)
        while x < 70:
            width, floors = rng.uniform(6, 10), int(rng.integers(2, 6))
            corners = [(x, floors * 3, z), (x + width, floors * 3, z), (x + width, 0, z), (x, 0, z)]
            layer.warp(facade_texture(street, width, floors, 8, (0, 0, -1)), street.project(corners))
            x += width
    street.add(layer)
