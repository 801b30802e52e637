"""The main face of a clip, crops and masks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import portrait

from pipelines import crop, faces


def face(x: float, y: float, side: float) -> np.ndarray:
    """478 points that fill a square."""
    rng = np.random.default_rng(0)
    points = np.zeros((478, 3), np.float32)
    points[:, :2] = rng.random((478, 2))
    points[0, :2], points[1, :2] = (0, 0), (1, 1)
    points[:, :2] = points[:, :2] * side + (x, y)
    return points


def clip(*frames: list[np.ndarray]):
    """frames() and a backend that returns the given faces frame after frame."""
    numbered = [np.full((8, 8, 3), k, np.uint8) for k in range(len(frames))]
    return (lambda: iter(numbered)), (lambda frame: frames[int(frame[0, 0, 0])])


def test_short_gaps_are_interpolated_and_long_ones_left() -> None:
    seen = [face(float(k), 0, 50) for k in range(40)]
    frames, backend = clip(*[[] if k in (5, 6, 7) or 20 <= k < 30 else [seen[k]] for k in range(40)])
    found = faces.track(frames, 25, backend)
    assert found.detected.sum() == 40 - 3 - 10
    np.testing.assert_allclose(found.points[5:8], np.stack(seen[5:8]), atol=1e-4)  # the motion is linear
    assert np.isnan(found.points[20:30]).all()
    assert faces.gaps(found.detected) == [(5, 8), (20, 30)]


def test_a_gap_at_the_ends_holds_the_nearest_face() -> None:
    frames, backend = clip([], [], *[[face(k, 0, 50)] for k in range(10)], [])
    found = faces.track(frames, 25, backend)
    np.testing.assert_array_equal(found.points[0], found.points[2])
    np.testing.assert_array_equal(found.points[-1], found.points[-2])


def test_main_face_by_size_and_persistence() -> None:
    """A big face that passes by does not beat a smaller one that stays; equal ones are told as rivals."""
    stays, passes = face(0, 0, 60), face(100, 0, 90)
    frames, backend = clip(*[[passes, stays] if k < 5 else [stays] for k in range(25)])
    found = faces.track(frames, 25, backend)
    np.testing.assert_array_equal(found.points[0], stays)
    assert found.others == 1
    assert found.rival == pytest.approx(5 * 90**2 / (25 * 60**2))
    frames, backend = clip(*[[face(100, 0, 60), stays]] * 10)
    assert faces.track(frames, 25, backend).rival == pytest.approx(1.0)


def test_no_face_is_an_error() -> None:
    frames, backend = clip([], [], [])
    with pytest.raises(faces.FaceError, match="no face in any of 3 frames"):
        faces.track(frames, 25, backend)


def test_facemesh_finds_one_face_and_five_points_in_their_places() -> None:
    pictures = list(portrait(0.4))
    found = faces.track(lambda: iter(pictures))
    assert found.detected.all()
    assert found.others == 0
    left_eye, right_eye, nose, left_mouth, right_mouth = faces.five_points(found.points[0])
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < nose[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
    again = faces.track(lambda: iter(pictures))
    np.testing.assert_array_equal(found.points, again.points)  # nothing is carried from clip to clip


def test_two_people_are_counted() -> None:
    one = next(portrait())
    both = np.concatenate([cv2.resize(one, (320, 320)), cv2.resize(cv2.flip(one, 1), (320, 320))], axis=1)
    found = faces.track(lambda: iter([both] * 3))
    assert found.others == 1
    assert found.rival > 0.8


@given(st.floats(-3.0, 3.0), st.floats(0.2, 5.0), st.floats(-100, 100), st.floats(-100, 100))
def test_similarity_recovers_the_transform(angle: float, scale: float, dx: float, dy: float) -> None:
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = crop.ARCFACE_TEMPLATE.astype(np.float64)
    moved = points @ rotation.T + (dx, dy)
    got = crop.similarity(points, moved)
    np.testing.assert_allclose(got, np.hstack([rotation, [[dx], [dy]]]), atol=1e-8)


def test_similarity_equals_scikit_image() -> None:
    from skimage.transform import SimilarityTransform

    rng = np.random.default_rng(3)
    for _ in range(20):
        points = rng.normal(size=(5, 2)) * 30
        reference = SimilarityTransform.from_estimate(points, crop.ARCFACE_TEMPLATE)
        np.testing.assert_allclose(crop.similarity(points, crop.ARCFACE_TEMPLATE), reference.params[:2], atol=1e-6)


@pytest.mark.parametrize("name", crop.CROPS)
def test_landmarks_move_with_the_pixels(name: crop.Crop) -> None:
    """A dot drawn at a landmark is found at the landmark of the crop, to half a pixel of the smaller picture."""
    points = np.stack([face(180 + 3 * k, 140 + k, 200) for k in range(12)])
    five = np.array([[230, 210], [300, 208], [266, 250], [240, 290], [296, 289]], np.float32)
    for k in range(12):
        points[k, [33, 133, 362, 263, 1, 61, 291], :2] = five[[0, 0, 1, 1, 2, 3, 4]] + (3 * k, k)
    cropper = crop.Cropper(name, points, (640, 480), 256, 25.0)
    scale = 256 / cropper.side
    for k in (0, 6, 11):
        for index in (1, 61, 263):
            x, y = points[k, index, :2]
            picture = np.zeros((480, 640, 3), np.uint8)
            yy, xx = np.mgrid[:480, :640]
            picture[...] = (255 * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / 18))[..., None]
            weight = cropper(picture, k)[..., 0].astype(float)
            yy, xx = np.mgrid[:256, :256]
            centre = np.array([(weight * xx).sum(), (weight * yy).sum()]) / weight.sum()
            assert np.abs(centre - cropper.points[k, index, :2]).max() < 0.5 * max(scale, 1), (name, k, index)


def test_square_keeps_the_face_centred_and_its_size() -> None:
    points = np.stack([face(200 + 2 * k, 100, 150) for k in range(50)])
    cropper = crop.Cropper("square", points, (800, 600), 256, 25.0)
    box = faces.boxes(cropper.points)
    centre = (box[:, :2] + box[:, 2:]) / 2
    assert np.abs(centre[18:-18] - 128).max() < 3  # slow motion is followed
    np.testing.assert_allclose(box[:, 2] - box[:, 0], 256 / crop.SQUARE, rtol=0.01)
    assert cropper.padding == 0


def test_portrait_is_the_box_expanded_by_half_its_size() -> None:
    points = np.repeat(face(300, 200, 100)[None], 5, axis=0)
    cropper = crop.Cropper("portrait", points, (800, 600), 512, 25.0)
    assert cropper.side == pytest.approx(200)
    np.testing.assert_allclose(faces.boxes(cropper.points)[0], [128, 128, 384, 384], atol=2)
    clamped = crop.Cropper("portrait", np.repeat(face(10, 200, 100)[None], 5, axis=0), (800, 600), 512, 25.0)
    assert clamped.padding == 0
    assert clamped.side == pytest.approx(160)


def test_what_lies_outside_the_picture_is_counted() -> None:
    points = np.repeat(face(0, 100, 200)[None], 5, axis=0)
    cropper = crop.Cropper("square", points, (640, 480), 256, 25.0)
    assert cropper.padding == pytest.approx(0.6 / 2 / crop.SQUARE, abs=0.03)
    assert cropper(np.full((480, 640, 3), 77, np.uint8), 0).min() == 77


def test_shrinking_does_not_alias() -> None:
    """A checkerboard of single pixels becomes flat grey under a strong reduction."""
    board = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    small = crop.warp(board, np.array([[0.2, 0, 0], [0, 0.2, 0]]), 100)
    assert np.abs(small[5:-5, 5:-5].astype(int) - 127).max() <= 2


def test_masks() -> None:
    points = np.zeros((2, 478, 3), np.float32)
    points[..., :2] = 60
    points[:, 127, 0], points[:, 356, 0], points[:, 151, 1], points[:, 152, 1] = 20, 100, 30, 110
    points[:, 151, 0] = points[:, 152, 0] = 60
    eat = crop.eat_face_mask(points, 128)
    assert eat.shape == (2, 128, 128)
    assert eat[0].sum() == 80 * 80
    assert eat[0, 30:110, 20:100].all()
    dice = crop.dice_talk_mask(points, 128)
    ys, xs = np.nonzero(dice[0])  # the box 20..100 x 30..110, enlarged by 1.1
    assert (xs.min(), xs.max(), ys.min(), ys.max()) == (16, 103, 26, 113)
