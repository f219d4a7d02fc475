"""The closed-form Grad-CAM, its colours and its overlays."""

import io

import numpy as np
import pytest
from PIL import Image

from lesion.imaging.heatmap import apply_colormap, encode_png, gradcam, overlay


def test_a_map_is_rectified_and_scaled_to_its_maximum() -> None:
    cam = np.array([[-4.0, 1.0], [2.0, 0.0]], np.float32)
    np.testing.assert_allclose(gradcam(cam, (2, 2)), [[0.0, 0.5], [1.0, 0.0]], atol=1e-6)


def test_a_map_is_enlarged_bilinearly_between_the_centres_of_cells() -> None:
    row = gradcam(np.array([[0.0, 1.0]], np.float32), (1, 4))
    np.testing.assert_allclose(row, [[0.0, 0.25, 0.75, 1.0]], atol=1e-6)


def test_the_scale_of_the_network_changes_nothing() -> None:
    cam = np.random.default_rng(0).normal(size=(7, 7)).astype(np.float32)
    np.testing.assert_allclose(gradcam(cam, (28, 28)), gradcam(cam * 40.0, (28, 28)), atol=1e-5)


@pytest.mark.parametrize("value", [-1.0, 0.0])
def test_a_map_that_speaks_against_the_class_everywhere_is_empty(value: float) -> None:
    heat = gradcam(np.full((3, 3), value, np.float32), (9, 6))
    assert heat.shape == (9, 6)
    assert not heat.any()


def test_it_equals_pytorch_grad_cam_in_every_sign() -> None:
    base_cam = pytest.importorskip("pytorch_grad_cam.utils.image", reason="needs the extra train")
    for offset in (-5.0, 0.0, 5.0):  # all negative, mixed, all positive
        cam = (np.random.default_rng(1).normal(size=(7, 7)) + offset).astype(np.float32)
        theirs = base_cam.scale_cam_image(np.maximum(cam, 0.0)[None], (64, 64))
        theirs = base_cam.scale_cam_image(np.maximum(theirs, 0.0))[0]
        np.testing.assert_allclose(gradcam(cam, (64, 64)), theirs, atol=2e-5)


def test_colours_are_those_of_plasma_and_grow_lighter_all_the_way() -> None:
    found = apply_colormap(np.linspace(0.0, 1.0, 256)[None])[0].astype(float)
    matplotlib = pytest.importorskip("matplotlib", reason="needs the extra train")
    np.testing.assert_allclose(found, matplotlib.colormaps["plasma"](range(256))[:, :3] * 255, atol=6)
    luminance = (found / 255) ** 2.2 @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance[::8]) > 0).all()
    np.testing.assert_array_equal(apply_colormap(np.array([[-1.0, 2.0]]))[0], found[[0, -1]])


def test_an_overlay_leaves_the_image_where_there_is_no_heat() -> None:
    image = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    heat = np.zeros((4, 4), np.float32)
    heat[0, 0] = 1.0
    mixed = overlay(image, heat, opacity=1.0)
    np.testing.assert_array_equal(mixed[0, 0], [240, 249, 33])
    mixed[0, 0] = image[0, 0]
    np.testing.assert_array_equal(mixed, image)


def test_a_png_holds_the_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    with Image.open(io.BytesIO(encode_png(image))) as read:
        assert read.format == "PNG"
        np.testing.assert_array_equal(np.asarray(read), image)
