"""Draws one picture of the embedded set: shapes to be told apart by outline alone, in front of texture and clutter.

All arithmetic is float64 NumPy with antialiasing by signed distance, so that the pixels do not depend on the version of
a drawing library; only Generator.random and Generator.integers are asked for random numbers.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

Outline = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (u, v), the shape in the unit circle -> distance, < 0 inside

FAINT = 36.0  # levels of RGB distance between a shape and its background below which an object counts as difficult
MOSTLY_HIDDEN, HIDDEN = 0.5, 0.2  # visible share of its area below which an object is difficult, any shape left out


class Shape(NamedTuple):
    """One annotated object: its whole extent within the image, also where others cover it."""

    name: str
    box: tuple[int, int, int, int]  # xyxy, 0-based continuous pixels; tight around the pixels it covers by half or more
    truncated: bool  # cut by the image's border
    difficult: bool  # faint, mostly covered or mostly outside


class _Layer(NamedTuple):
    """A shape placed but not painted. Its patch may stick out of the image."""

    name: str
    top: int
    left: int
    cover: np.ndarray  # [h, w] in 0..1
    is_object: bool


def _half_planes(u: np.ndarray, v: np.ndarray, sides: int, inradius: float) -> np.ndarray:
    angles = 2 * np.pi * np.arange(sides) / sides
    return np.stack([u * np.cos(a) + v * np.sin(a) - inradius for a in angles])


def _bar(u: np.ndarray, v: np.ndarray, half_u: float, half_v: float) -> np.ndarray:
    return np.maximum(np.abs(u) - half_u, np.abs(v) - half_v)


# All lie in the unit circle. Intersections are maxima, unions minima, complements signs.
OBJECTS: dict[str, Outline] = {
    "cross": lambda u, v: np.minimum(_bar(u, v, 0.95, 0.3), _bar(u, v, 0.3, 0.95)),
    "disc": lambda u, v: np.hypot(u, v) - 0.9,
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.7) - 0.2,
    "square": lambda u, v: _bar(u, v, 0.7, 0.7),
    "star": lambda u, v: np.sort(_half_planes(u, v, 5, 0.305), axis=0)[-2],  # inside at least four of the five lines
    "triangle": lambda u, v: np.max(_half_planes(u, v, 3, 0.5), axis=0),
}
CLUTTER: dict[str, Outline] = {
    "half disc": lambda u, v: np.maximum(np.hypot(u, v) - 0.9, -u),
    "crescent": lambda u, v: np.maximum(np.hypot(u, v) - 0.9, 0.75 - np.hypot(u - 0.45, v)),
    "ellipse": lambda u, v: (np.hypot(u, v / 0.4) - 0.95) * 0.4,
    "strip": lambda u, v: _bar(u, v, 0.98, 0.16),
    "L": lambda u, v: np.minimum(_bar(u + 0.42, v, 0.2, 0.76), _bar(u, v - 0.56, 0.62, 0.2)),
    "arc": lambda u, v: np.maximum(np.abs(np.hypot(u, v) - 0.75) - 0.15, np.minimum(u, v)),
}


def draw_picture(rng: Generator, height: int, width: int, sizes: tuple[float, float]) -> tuple[np.ndarray, list[Shape]]:
    """One picture, uint8 RGB [height, width, 3], and its objects (none in one of twenty).

    sizes: shortest and longest diameter of the circle around a shape in pixels; drawn uniformly in the logarithm.
    """
    ground = _background(rng, height, width)
    canvas = ground.copy()
    number = 0 if rng.random() < 0.05 else int(rng.integers(1, 9))
    layers = [_place(rng, OBJECTS, height, width, sizes, True) for _ in range(number)]
    layers += [_place(rng, CLUTTER, height, width, sizes, False) for _ in range(int(rng.integers(1, 5)))]
    order = np.argsort(rng.random(len(layers)))
    kept = _visible([layers[i] for i in order], height, width)
    shapes = []
    for layer, visible in kept:
        contrast = _paint(rng, canvas, ground, layer)
        if layer.is_object:
            box, truncated = _box(layer, height, width)
            shapes.append(Shape(layer.name, box, truncated, visible < MOSTLY_HIDDEN or contrast < FAINT))
    return np.rint(np.clip(canvas, 0, 255)).astype(np.uint8), shapes


def _place(
    rng: Generator, outlines: dict[str, Outline], height: int, width: int, sizes: tuple[float, float], is_object: bool
) -> _Layer:
    names = list(outlines)
    name = names[rng.integers(len(names))]
    radius = 0.5 * sizes[0] * (sizes[1] / sizes[0]) ** rng.random()
    margin = 0.3 * radius  # the centre stays inside the image by this much: at most a good half is cut off
    row = margin + rng.random() * (height - 2 * margin)
    column = margin + rng.random() * (width - 2 * margin)
    angle = np.deg2rad(60) * (rng.random() - 0.5)  # upright, give or take 30 degrees
    squeeze = 0.88 + 0.12 * rng.random()  # seen a little from the side; the clutter's ellipse is far flatter
    top, left = int(np.floor(row - radius)) - 1, int(np.floor(column - radius)) - 1
    side = int(np.ceil(2 * radius)) + 3
    y = np.arange(top, top + side)[:, None] + 0.5 - row
    x = np.arange(left, left + side)[None, :] + 0.5 - column
    u = (x * np.cos(angle) + y * np.sin(angle)) / radius
    v = (y * np.cos(angle) - x * np.sin(angle)) / (radius * squeeze)
    cover = np.clip(0.5 - outlines[name](u, v) * radius, 0, 1)
    return _Layer(name, top, left, cover, is_object)


def _visible(layers: list[_Layer], height: int, width: int) -> list[tuple[_Layer, float]]:
    """The layers in painting order with the share of each that is seen, without those of which too little is."""
    hidden = np.zeros((height, width))
    kept = []
    for layer in reversed(layers):
        rows, columns, inner = _window(layer, height, width)
        cover = layer.cover[inner]
        visible = float((cover * (1 - hidden[rows, columns])).sum() / layer.cover.sum())
        if visible < HIDDEN:
            continue
        hidden[rows, columns] = np.maximum(hidden[rows, columns], cover)
        kept.append((layer, visible))
    return kept[::-1]


def _window(layer: _Layer, height: int, width: int) -> tuple[slice, slice, tuple[slice, slice]]:
    """Where the layer's patch meets the image: rows and columns of the image, and the same within the patch."""
    bottom, right = layer.top + layer.cover.shape[0], layer.left + layer.cover.shape[1]
    rows = slice(max(layer.top, 0), min(bottom, height))
    columns = slice(max(layer.left, 0), min(right, width))
    across = slice(columns.start - layer.left, columns.stop - layer.left)
    return rows, columns, (slice(rows.start - layer.top, rows.stop - layer.top), across)


def _box(layer: _Layer, height: int, width: int) -> tuple[tuple[int, int, int, int], bool]:
    solid = layer.cover >= 0.5
    ys, xs = np.flatnonzero(solid.any(axis=1)) + layer.top, np.flatnonzero(solid.any(axis=0)) + layer.left
    whole = (int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1)
    cut = (max(whole[0], 0), max(whole[1], 0), min(whole[2], width), min(whole[3], height))
    return cut, cut != whole


def _paint(rng: Generator, canvas: np.ndarray, ground: np.ndarray, layer: _Layer) -> float:
    """Blends the layer in, in a colour at a random distance from what lies under it; returns that distance.

    Some of the ground's texture shows on it, so that smoothness does not give an object away."""
    rows, columns, inner = _window(layer, *canvas.shape[:2])
    patch, cover = canvas[rows, columns], layer.cover[inner][..., None]
    under = (patch * cover).sum(axis=(0, 1)) / cover.sum()
    contrast = 30 * (200 / 30) ** rng.random()
    for _ in range(20):
        direction = rng.random(3) + 0.15  # lighter than the ground, as a rule of this world that can be learnt
        colour = under + contrast * direction / np.sqrt((direction**2).sum())
        if colour.min() >= 5 and colour.max() <= 250:
            break
    colour = np.clip(colour, 5, 250)
    shade = 30 * (rng.random() - 0.5) * np.linspace(-1, 1, patch.shape[1])[None, :, None]
    texture = ground[rows, columns] - ground[rows, columns].mean(axis=(0, 1))
    grain = 0.3 + 0.5 * rng.random()
    patch += cover * (colour + shade + grain * texture - patch)
    return float(np.sqrt(((colour - under) ** 2).sum()))


def _background(rng: Generator, height: int, width: int) -> np.ndarray:
    """A gradient between two colours under coarse and fine noise and, in two of five pictures, stripes; [H, W, 3]."""
    y, x = np.linspace(-1, 1, height)[:, None, None], np.linspace(-1, 1, width)[None, :, None]
    base = 40 + 70 * rng.random(3)
    angle = 2 * np.pi * rng.random()
    canvas = base + 40 * (rng.random(3) - 0.5) * (x * np.cos(angle) + y * np.sin(angle))
    for cell in (48, 20, 8, 3):
        strength = 21 * rng.random() ** 2 * (cell / 48) ** 0.25
        canvas = canvas + strength * _noise(rng, height, width, cell) * (0.6 + 0.8 * rng.random(3))
    if rng.random() < 0.4:
        angle, period = np.pi * rng.random(), 6 + 24 * rng.random()
        waves = np.sin(2 * np.pi * (x * np.cos(angle) * width + y * np.sin(angle) * height) / (2 * period))
        canvas = canvas + (3 + 10 * rng.random()) * waves * (0.5 + rng.random(3))
    return canvas + (2 + 5 * rng.random()) * (2 * rng.random((height, width, 1)) - 1)


def _noise(rng: Generator, height: int, width: int, cell: int) -> np.ndarray:
    """Value noise in -1..1, [height, width, 1]: random numbers on a grid of cell pixels, interpolated linearly."""
    grid = 2 * rng.random((height // cell + 2, width // cell + 2)) - 1
    y, x = np.arange(height) / cell, np.arange(width) / cell
    i, j = y.astype(int), x.astype(int)
    fy, fx = (y - i)[:, None], (x - j)[None, :]
    rows = grid[i] * (1 - fy) + grid[i + 1] * fy
    return (rows[:, j] * (1 - fx) + rows[:, j + 1] * fx)[..., None]
