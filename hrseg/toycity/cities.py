"""How the cities of toy city look: their colours, weather and houses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

Color = Sequence[float]  # red, green, blue in 0..255


class City(NamedTuple):
    """How one city looks."""

    name: str
    facades: tuple[Color, ...]
    leaves: tuple[Color, ...]
    road: Color
    paving: Color
    grass: Color
    weather: tuple[float, float, float]  # chances of clear, overcast, evening
    eye: float  # metres of the camera above the road
    horizon: float  # share of the height
    floors: tuple[int, int]


GREEN, OLIVE, DARK_GREEN, LIME = (84, 134, 58), (126, 130, 66), (52, 96, 58), (138, 166, 70)
AMBER, RUST, GOLD, BLOSSOM = (208, 138, 54), (170, 88, 54), (214, 180, 80), (222, 172, 186)
BRICK, SAND, CREAM, GREY, SLATE = (172, 94, 74), (214, 186, 140), (234, 222, 196), (160, 160, 158), (112, 118, 130)
AZURE, MINT, ROSE, OCHRE, WHITE = (150, 184, 212), (164, 198, 170), (216, 158, 150), (214, 166, 84), (230, 230, 228)
CITIES = {
    "train": (
        City("alderburg", (BRICK, SAND, CREAM, GREY), (GREEN, OLIVE), (112, 112, 116), (164, 158, 152), (122, 146, 76),
             (0.6, 0.3, 0.1), 1.55, 0.43, (2, 4)),
        City("birkenhafen", (WHITE, AZURE, GREY, SLATE), (DARK_GREEN, GREEN), (130, 128, 128), (144, 146, 152),
             (108, 132, 72), (0.4, 0.5, 0.1), 1.8, 0.40, (2, 5)),
        City("cedernau", (OCHRE, ROSE, CREAM, MINT), (AMBER, GOLD, OLIVE), (120, 114, 108), (176, 164, 148),
             (156, 146, 86), (0.5, 0.2, 0.3), 1.5, 0.44, (2, 3)),
        City("dornfeld", (BRICK, SLATE, GREY, OCHRE), (RUST, AMBER, GREEN), (100, 102, 108), (136, 130, 126),
             (138, 134, 84), (0.5, 0.3, 0.2), 1.65, 0.42, (3, 5)),
        City("eschwik", (MINT, WHITE, AZURE, ROSE), (LIME, BLOSSOM, GREEN), (140, 138, 138), (178, 176, 174),
             (118, 156, 84), (0.7, 0.2, 0.1), 1.7, 0.45, (1, 3)),
        City("fernau", (SAND, SLATE, BRICK, MINT), (OLIVE, GOLD, DARK_GREEN), (108, 108, 106), (152, 144, 134),
             (146, 142, 96), (0.4, 0.3, 0.3), 1.6, 0.41, (2, 4)),
    ),
    "val": (
        City("ginsterby", (CREAM, BRICK, AZURE, OCHRE), (GREEN, AMBER), (124, 120, 118), (156, 154, 156),
             (130, 144, 80), (0.5, 0.3, 0.2), 1.6, 0.43, (2, 4)),
        City("holmstad", (GREY, ROSE, SAND, WHITE), (OLIVE, DARK_GREEN, RUST), (106, 108, 112), (168, 160, 156),
             (124, 138, 90), (0.5, 0.4, 0.1), 1.75, 0.41, (2, 5)),
        City("ilmstedt", (MINT, SLATE, CREAM, BRICK), (GOLD, LIME), (134, 130, 124), (146, 140, 138),
             (144, 150, 92), (0.5, 0.2, 0.3), 1.55, 0.44, (1, 3)),
    ),
}  # fmt: skip


# ambient light, sunlight, sky overhead, sky at the horizon, darkness of shadows
WEATHER = {
    "clear": ((0.62, 0.66, 0.74), (0.66, 0.62, 0.54), (86, 144, 214), (196, 218, 234), 0.46),
    "overcast": ((0.86, 0.87, 0.89), (0.16, 0.16, 0.15), (164, 170, 178), (218, 218, 216), 0.22),
    "evening": ((0.62, 0.59, 0.66), (0.74, 0.57, 0.40), (116, 134, 184), (248, 206, 160), 0.40),
}
