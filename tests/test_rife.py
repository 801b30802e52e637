"""RIFE: the middle of a picture and its shifted self is the picture shifted by half."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmark import weights
from reference_models.base import GenerationError
from reference_models.rife import IFNet, Rife, warped


@pytest.fixture(scope="module")
def rife() -> Rife:
    try:
        return Rife(weights.path("rife-v3", fetch=False))
    except weights.WeightsUnavailable as error:
        pytest.skip(f"rife-v3 is not on this machine ({error.command})")


def texture(height: int, width: int) -> np.ndarray:
    """Smooth noise, (height, width, 3) uint8."""
    noise = cv2.GaussianBlur(np.random.default_rng(0).random((height, width, 3)), (0, 0), 3)
    return np.uint8(255 * (noise - noise.min()) / np.ptp(noise))


@pytest.mark.parametrize("shift", [4, 8])
def test_the_middle_of_a_shifted_picture_is_shifted_by_half(rife: Rife, shift: int) -> None:
    whole = texture(118, 150)
    first, last, middle = (whole[8:102, 20 + dx : 130 + dx] for dx in (0, -shift, -shift // 2))
    made = rife.between(first[None], last[None])[0]
    assert made.shape == middle.shape
    assert made.dtype == np.uint8
    inside = np.s_[12:-12, 12:-12]
    error = np.abs(made.astype(float) - middle)[inside].mean()
    blend = np.abs((first.astype(float) + last) / 2 - middle)[inside].mean()
    assert error < 0.25 * blend  # cross-fading is what a method without motion would give


def test_a_still_picture_stays_and_floats_are_taken(rife: Rife) -> None:
    picture = texture(50, 70)[None]
    assert np.abs(rife.between(picture, picture).astype(int) - picture).max() <= 3
    real = torch.from_numpy(picture).float() / 255
    assert np.array_equal(rife.between(real, real), rife.between(picture, picture))


def test_warping_reads_where_the_flow_points() -> None:
    picture = torch.arange(30.0).view(1, 1, 5, 6)
    right, half_down = torch.zeros(1, 2, 5, 6), torch.zeros(1, 2, 5, 6)
    right[:, 0], half_down[:, 1] = 1.0, 0.5
    assert torch.allclose(warped(picture, right)[..., :-1], picture[..., 1:], atol=1e-4)
    assert torch.allclose(warped(picture, right)[..., -1], picture[..., -1], atol=1e-4)  # the edge goes on
    assert torch.allclose(
        warped(picture, half_down)[:, :, :-1], (picture[:, :, 1:] + picture[:, :, :-1]) / 2, atol=1e-4
    )


def test_pictures_of_different_sizes_are_refused(rife: Rife) -> None:
    with pytest.raises(ValueError, match="expected twice the same"):
        rife.between(texture(32, 32)[None], texture(32, 40)[None])


@pytest.mark.parametrize("content", [b"no checkpoint", None])
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "flownet.pkl"
    if content is None:
        torch.save({f"module.{name}": tensor[..., :1] for name, tensor in IFNet().state_dict().items()}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(
        GenerationError, match=r"flownet\.pkl: no weights of RIFE \(.*bench weights fetch rife-v3"
    ) as told:
        Rife(path)
    assert "\n" not in str(told.value)
