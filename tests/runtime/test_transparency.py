"""Colours beneath transparency, and alpha that stays clear where it was."""

import numpy as np
from PIL import Image, ImageFilter

from runtime.upscale.transparency import Flats, filled_colours, over_white


def test_visible_colours_stay_and_hidden_ones_come_from_around():
    """A red disc and a blue one on hidden green: no green is left, and each is continued by its own colour."""
    y, x = np.mgrid[:61, :90]
    red, blue = (y - 30) ** 2 + (x - 20) ** 2 < 200, (y - 30) ** 2 + (x - 70) ** 2 < 200
    rgb = np.full((61, 90, 3), (0, 255, 0), np.uint8)
    rgb[red], rgb[blue] = (255, 0, 0), (0, 0, 255)
    alpha = np.where(red | blue, 200, 0).astype(np.uint8)
    found = filled_colours(rgb, alpha)
    assert np.array_equal(found[alpha > 0], rgb[alpha > 0])
    assert found[..., 1].max() == 0
    near = np.asarray(Image.fromarray(red).filter(ImageFilter.MaxFilter(5))) & ~red
    assert found[near][:, 0].min() > 200


def test_nothing_to_fill_from_or_nothing_to_fill():
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    for opacity in (0, 1, 255):
        assert np.array_equal(filled_colours(rgb, np.full((5, 7), opacity, np.uint8)), rgb)


def test_one_visible_pixel_colours_all():
    rgb, alpha = np.zeros((9, 16, 3), np.uint8), np.zeros((9, 16), np.uint8)
    rgb[8, 15], alpha[8, 15] = (10, 20, 30), 255
    assert np.abs(filled_colours(rgb, alpha).astype(int) - (10, 20, 30)).max() <= 4  # rounded at every level


def test_flat_parts_are_restored_in_every_strip():
    alpha = np.zeros((12, 15), np.uint8)
    alpha[:, 8:] = 255
    flats = Flats(alpha, 3)
    veil = np.full((36, 45), 7, np.uint8)  # what a network might make of it
    found = np.concatenate([flats.restored(veil[first : first + 5], first) for first in range(0, 36, 5)])
    edge = found[:, 3 * 7 : 3 * 9]
    assert (edge == 7).all()
    assert (found[:, : 3 * 7] == 0).all()
    assert (found[:, 3 * 9 :] == 255).all()


def test_over_white():
    rows = np.array([[[10, 0], [10, 255], [0, 128]]], np.uint8)
    assert over_white(rows)[0, :, 0].tolist() == [255, 10, 127]
