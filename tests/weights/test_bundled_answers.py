"""The default network before pictures that no camera took: no answer may run away."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from dehaze.dehazer import from_name

HEIGHT, WIDTH = 72, 96


def _pictures() -> dict[str, npt.NDArray[np.float32]]:
    draw = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    slope = np.stack([0.3 + 0.6 * y / HEIGHT, 0.4 + 0.4 * x / WIDTH, 0.9 - 0.5 * y / HEIGHT], -1)
    found = {
        "checkerboard": np.repeat(((x + y) % 2)[..., None], 3, 2),
        "stripes": np.repeat((x % 2)[..., None], 3, 2),
        "noise": draw.random((HEIGHT, WIDTH, 3)) < 0.5,
    }
    for colour in itertools.product((0, 1), repeat=3):
        found[f"all {colour}"] = np.broadcast_to(colour, (HEIGHT, WIDTH, 3))
        found[f"some {colour}"] = slope.copy()
        found[f"some {colour}"][20:60, 30:70] = colour
    return {name: np.asarray(picture, np.float32) for name, picture in found.items()}


def test_answers_stay_near_what_a_picture_can_be() -> None:
    network = from_name(pictures=1).network
    beyond = {
        n: max(float(-a.min()), float(a.max() - 1)) for n, p in _pictures().items() for a in network(p[None])
    }
    assert {n: by for n, by in beyond.items() if by > 2} == {}
