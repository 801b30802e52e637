"""Expression coefficients: what the mesh's directions hold and what they leave out, and files of other tools."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import talkers
from samples import portrait
from scipy.io import savemat
from scipy.spatial.transform import Rotation

from reference_models.base import Footage, GenerationError
from reference_models.dice_talk import coefficients
from reference_models.dice_talk.coefficients import BLENDSHAPES, MESH, MORPHABLE, Coefficients, aligned, fit
from reference_models.training import TrainingError

TASK = "weights/face_landmarker_v2_with_blendshapes.task"


@pytest.fixture(scope="module")
def clips() -> list[Footage]:
    return talkers.people("a", "b", "c", takes=2, frames=24)


@pytest.fixture(scope="module")
def mesh(clips: list[Footage]) -> Coefficients:
    return fit(MESH, clips, None)


def test_alignment_undoes_a_similarity_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    shape = rng.standard_normal((20, 3))
    shape -= shape.mean(0)
    turns = Rotation.random(5, rng=1).as_matrix()
    faces = 3.7 * np.einsum("nij,pj->npi", turns, shape) + rng.standard_normal((5, 1, 3))
    np.testing.assert_allclose(aligned(faces, shape), np.broadcast_to(shape, (5, 20, 3)), atol=1e-12)
    mirrored = shape * [-1, 1, 1]  # a reflection is no similarity of a face: it must not be turned back
    assert np.abs(aligned(mirrored[None], shape)[0] - shape).max() > 0.1


def test_alignment_is_the_least_squares_one() -> None:
    """No small turn or scaling of what it returns comes nearer."""
    rng = np.random.default_rng(2)
    shape = rng.standard_normal((30, 3))
    shape -= shape.mean(0)
    found = aligned(shape[None] + 0.3 * rng.standard_normal((1, 30, 3)), shape)[0]
    best = ((found - shape) ** 2).sum()
    for axis in np.eye(3):
        for angle in (-0.01, 0.01):
            assert ((found @ Rotation.from_rotvec(angle * axis).as_matrix() - shape) ** 2).sum() > best
    assert all(((found * scale - shape) ** 2).sum() > best for scale in (0.99, 1.01))


def test_the_mesh_has_principal_directions_about_each_persons_mean(clips: list[Footage], mesh: Coefficients) -> None:
    assert mesh.shape is not None
    assert mesh.basis is not None
    np.testing.assert_allclose(mesh.basis.T @ mesh.basis, np.eye(64), atol=1e-9)
    flat = {who: [] for who in "abc"}
    for clip in clips:
        frames = coefficients.spread(clip.points())
        flat[clip.identity].append((aligned(frames, mesh.shape) - mesh.shape).reshape(len(frames), -1))
    about = np.concatenate([np.concatenate(of) - np.concatenate(of).mean(0) for of in flat.values()])
    _, _, directions = np.linalg.svd(about, full_matrices=False)
    np.testing.assert_allclose(np.abs(np.sum(directions[:5] * mesh.basis.T[:5], 1)), 1, atol=1e-6)
    held = (about @ mesh.basis).var(0).sum() / about.var(0).sum()
    assert held > 0.9
    # What makes people differ is mostly outside.
    people = np.stack([np.concatenate(of).mean(0) for of in flat.values()])
    people -= people.mean(0)
    assert ((people @ mesh.basis) ** 2).sum() < 0.3 * (people**2).sum()


def test_coefficients_are_standardised_and_do_not_see_the_pose(clips: list[Footage], mesh: Coefficients) -> None:
    every = np.concatenate([coefficients.spread(mesh(clip, None)) for clip in clips])
    np.testing.assert_allclose(every.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(every[:, :5].std(0), 1, atol=1e-3)
    assert every.dtype == np.float32
    clip = clips[0]
    turn = Rotation.from_euler("xyz", [20, -30, 10], degrees=True).as_matrix()
    moved = replace(clip, points=lambda: (1.4 * clip.points() @ turn + 50).astype(np.float32))
    np.testing.assert_allclose(mesh(moved, None), mesh(clip, None), atol=0.02)


def test_too_little_to_learn_directions_from_is_said(clips: list[Footage]) -> None:
    with pytest.raises(TrainingError, match=r"^mesh-64: 24 frames of 3 people do not span 64 directions"):
        fit(MESH, [talkers.talker(who, "sad", frames=8) for who in "abc"], None)
    with pytest.raises(TrainingError, match=r"expected one of mesh-64, blendshapes-52, 3dmm-64"):
        fit("flame-50", clips, None)
    flat = replace(clips[0], points=lambda: np.zeros((24, 478, 3), np.float32))
    with pytest.raises(GenerationError, match=r"^a_angry_0: a face mesh that is not finite, or all on one spot"):
        fit(MESH, [flat], None)


# --- 3dmm-64 -----------------------------------------------------------------------------------------------------


@pytest.fixture
def clip(tmp_path: Path) -> Footage:
    return talkers.talker("a", "happy", frames=20, folder=tmp_path)


def test_files_of_other_tools_give_the_expression(clip: Footage) -> None:
    vectors = np.random.default_rng(0).standard_normal((20, 257)).astype(np.float32)
    savemat(clip.video.with_suffix(".mat"), {"coeff": vectors})
    np.testing.assert_array_equal(coefficients.morphable(clip), vectors[:, 80:144])
    savemat(clip.video.with_suffix(".mat"), {"coeff_3dmm": vectors[:, :73]})
    np.testing.assert_array_equal(coefficients.morphable(clip), vectors[:, :64])
    # An .npz says its rate; 40 frames at 50 fps are 20 at 25.
    beta = np.repeat(vectors[:, :64], 2, 0)
    np.savez(clip.video.with_suffix(".npz"), beta=beta, fps=50.0, type=MORPHABLE)
    np.testing.assert_allclose(coefficients.morphable(clip), vectors[:, :64], atol=1e-6)
    fitted = fit(MORPHABLE, [clip], None)
    np.testing.assert_allclose(fitted(clip, None).std(0)[:8], 1, atol=0.3)


def test_bad_files_of_coefficients_are_one_line(clip: Footage) -> None:
    npz, mat = clip.video.with_suffix(".npz"), clip.video.with_suffix(".mat")

    def said() -> str:
        with pytest.raises(GenerationError) as error:
            coefficients.morphable(clip)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "expected a_happy_0.npz (beta, fps, type) or a_happy_0.mat" in said()
    with pytest.raises(TrainingError, match=r"^1 of 1 clips have no 3dmm-64 coefficients; expected a_happy_0\.npz"):
        fit(MORPHABLE, [clip], None)
    mat.write_bytes(b"no matrix")
    assert said().startswith("a_happy_0.mat: no readable coeff")
    savemat(mat, {"other": np.zeros(3)})
    assert "no readable coeff or coeff_3dmm" in said()
    savemat(mat, {"coeff": np.zeros((20, 64))})
    assert "coeff of shape (20, 64); expected (N, 257)" in said()
    savemat(mat, {"coeff": np.zeros((90, 257))})
    assert "90 frames at 25 fps; the clip has 20 at 25" in said()
    savemat(mat, {"coeff": np.full((20, 257), np.nan)})
    assert "all finite" in said()
    npz.write_bytes(b"PK\3\4 torn")
    assert said().startswith("a_happy_0.npz: no readable arrays")
    np.savez(npz, beta=np.array([{"an": "object"}], object), fps=25, type=MORPHABLE)
    assert "no readable arrays" in said()
    np.savez(npz, beta=np.zeros((20, 52)), fps=25, type=BLENDSHAPES)
    assert "holds blendshapes-52; expected 3dmm-64: types are never mixed" in said()
    np.savez(npz, beta=np.zeros((20, 64)), fps=0, type=MORPHABLE)
    assert "at 0 fps" in said()


# --- blendshapes-52 ----------------------------------------------------------------------------------------------


def test_blendshapes_of_a_photographed_face(real: Callable[[str], Path], clip: Footage) -> None:
    task = real(TASK)
    frames = list(portrait(0.2))
    blank = np.zeros_like(frames[0])
    filmed = replace(clip, num_frames=6, frames=lambda: iter([blank, *frames]))
    scores = coefficients.blendshapes(filmed, task)
    assert scores.shape == (6, 52)
    assert scores.min() >= 0
    assert scores.max() <= 1
    np.testing.assert_array_equal(scores[0], scores[1])  # no face there: as the nearest
    smile = [44, 45]  # mouthSmileLeft, mouthSmileRight of MediaPipe's list, "_neutral" first
    assert scores[:, smile].min() > 0.5
    with pytest.raises(GenerationError, match=r"^no face in any of 2 frames"):
        coefficients.blendshapes(replace(clip, frames=lambda: iter([blank, blank])), task)


def test_blendshapes_without_their_network_say_so(clip: Footage, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="needs face-landmarker; `bench weights fetch face-landmarker`"):
        fit(BLENDSHAPES, [clip], None)
    task = tmp_path / "x.task"
    task.write_bytes(b"no task")
    with pytest.raises(GenerationError, match=r"^x.task: not a Face Landmarker"):
        coefficients.blendshapes(clip, task)
