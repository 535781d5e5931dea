"""The scenes of toy city: what stands where, how it looks, and the polygon that annotates it.

A scene is a list of layers, far to near. Each layer has colours, where they are, and an extent from which the polygon
of its annotation follows. Colours are drawn at random for nearly everything, so shape, texture and place tell the
classes apart, not colour.
"""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image, ImageDraw

from hrseg.toycity.backdrop import draw_backdrop, draw_sky
from hrseg.toycity.cars import draw_cars
from hrseg.toycity.cities import CITIES, City
from hrseg.toycity.cyclists import draw_cyclists
from hrseg.toycity.furniture import draw_furniture
from hrseg.toycity.gardens import draw_gardens, draw_street_trees
from hrseg.toycity.ground import GROUND, draw_ground
from hrseg.toycity.houses import draw_houses
from hrseg.toycity.layers import MIN_WIDTH, fixed_point, shrink
from hrseg.toycity.noise import noise_piece
from hrseg.toycity.people import draw_people
from hrseg.toycity.street import Street

MIN_SHARE = 0.35  # of a counted object that can be seen
COUNTED = {"pole", "traffic sign", "traffic light", "person", "rider", "car", "bicycle"}


def draw_scene(seed: int, split: str, index: int, size: tuple[int, int] = (256, 512)) -> tuple[np.ndarray, dict]:
    """The image, uint8 [H, W, 3], and the annotation of one scene: a function of these arguments alone."""
    cities = CITIES[split]
    scene = Scene(np.random.default_rng([seed, list(CITIES).index(split), index]), cities[index % len(cities)], size)
    return scene.paint(), {"imgHeight": size[0], "imgWidth": size[1], "objects": scene.objects}


class Scene(Street):
    """A street with everything on it, drawn from the back to the front."""

    def __init__(self, rng: np.random.Generator, city: City, size: tuple[int, int]):
        super().__init__(rng, city, size)
        draw_sky(self)
        draw_backdrop(self)
        draw_ground(self)
        background = len(self.layers)
        draw_houses(self)
        draw_gardens(self)
        draw_cars(self)
        draw_furniture(self)
        draw_cyclists(self)
        draw_people(self)
        draw_street_trees(self)
        self.layers[background:] = sorted(self.layers[background:], key=lambda layer: -layer.depth)
        self._drop_hidden()

    @property
    def objects(self) -> list[dict]:
        """The annotation's objects, far to near."""
        objects = []
        for layer in self.layers:
            objects.append({"label": layer.label, "polygon": layer.points})
            objects += [{"label": "license plate", "polygon": plate} for plate in layer.plates]
        return objects

    def _drop_hidden(self) -> None:
        """Leave out those counted objects of which too little can be seen."""
        owner, bad = Image.new("I", self.size[::-1], 0), set()
        for index, layer in enumerate(self.layers):
            ImageDraw.Draw(owner).polygon([tuple(p) for p in layer.points], fill=index + 1)
        seen = np.asarray(owner)
        for index, layer in enumerate(self.layers):
            if layer.label.removesuffix("group") in COUNTED:
                rows, columns = np.nonzero(seen == index + 1)
                area = cv2.contourArea(np.array(layer.points))
                if len(rows) <= MIN_SHARE * area or np.ptp(columns) + 1 < MIN_WIDTH:
                    bad.add(index)
        pairs = {self.layers[i].together for i in bad} - {0}
        self.layers = [a for i, a in enumerate(self.layers) if i not in bad and a.together not in pairs]

    def paint(self) -> np.ndarray:
        """The picture, uint8 [H, W, 3]."""
        rng = self.rng
        canvas, tone, dark = np.zeros((*self.canvas, 3), np.uint8), *np.zeros((2, *self.canvas), np.float32)
        for hull in self.shadows:
            cv2.fillPoly(dark, [fixed_point(hull)], self.shade, cv2.LINE_8, 4)
        light = 1 - cv2.GaussianBlur(dark, (0, 0), 2.5 if self.shade > 0.3 else 6)
        haze = np.full_like(canvas, np.array(self.sky_low, np.uint8))
        for layer in self.layers:
            h, w = layer.paint.shape
            rgb: np.ndarray = layer.rgb
            if layer.tone is None:
                shade = 1 + layer.grain * noise_piece(rng, "leaves" if layer.grain > 0.2 else "grain", h, w)
            else:
                shade = layer.tone * light[layer.box]
            if layer.depth < GROUND:
                shade = shade * np.linspace(1.04, 0.88, h, dtype=np.float32)[:, None]
                fade = float(np.exp(-layer.depth / 180))
                rgb = cv2.addWeighted(layer.rgb, fade, haze[layer.box], 1 - fade, 0)
            cv2.copyTo(rgb, layer.paint, canvas[layer.box])
            cv2.copyTo(shade, layer.paint, tone[layer.box])
        gain = rng.uniform(0.95, 1.12) * (1 + rng.normal(0, 0.012, 3))
        picture = shrink(canvas) * shrink(tone)[..., None] * (gain / 255).astype(np.float32)
        picture = 255 * np.clip(picture, 0, 1) ** np.float32(rng.uniform(0.88, 1.08))
        picture = picture + rng.standard_normal(picture.shape, np.float32) * np.float32(rng.uniform(1.5, 4))
        return np.clip(picture + 0.5, 0, 255).astype(np.uint8)
