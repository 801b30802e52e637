"""Numbers of packages that the environment of the tests cannot hold: python tests/references.py FOLDER

Installs them into FOLDER, without what they ask for, runs them on the clips of ../shared/data, and writes
tests/references.json, which the tests compare with. torchvision does not work beside a CPU build of torch; lpips
needs it to be importable only.
"""

from __future__ import annotations

import json
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import realclips
import torch

from benchmark import weights

PACKAGES = {
    "lpips": "0.1.4",
    "torchvision": "0.29.2",
    "torchmetrics": "1.9.0",
    "lightning-utilities": "0.15.2",
    "python_speech_features": "0.6",
    "scenedetect": "0.7.2",
    "cpbd": "1.0.7",
}
OUTPUT = Path(__file__).with_name("references.json")


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    folder = Path(sys.argv[1])
    wanted = [f"{name}=={number}" for name, number in PACKAGES.items()]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *wanted]
    if not folder.exists():
        subprocess.run(command, check=True)
    sys.path.insert(0, str(folder))
    found = {"versions": {name: number for name, number in PACKAGES.items() if name in SAID}}
    for part in (with_lpips, with_torchmetrics, with_cpbd, with_speech_features, with_scenedetect):
        found |= part()
    waiting = OUTPUT.with_name(f".{OUTPUT.name}.part")
    waiting.write_text(json.dumps(found, indent=1) + "\n")
    waiting.replace(OUTPUT)


SAID = ("lpips", "torchmetrics", "python_speech_features", "scenedetect", "cpbd")


def with_lpips() -> dict[str, Any]:
    """Distances of the pairs, plain and the mean of the spatial map; the package's own heads, the registry's trunks."""
    register: Any = torch.library.register_fake
    torch.library.register_fake = lambda *_, **__: lambda function: function  # its own operators are not used
    import lpips

    torch.library.register_fake = register
    found: dict[str, Any] = {}
    for net, name in (("alex", "lpips-alexnet"), ("vgg", "lpips-vgg16")):
        model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).eval()
        convolutions = [layer for layer in model.net.modules() if isinstance(layer, torch.nn.Conv2d)]
        from safetensors.torch import load_file

        state = load_file(weights.path(name))
        for k, layer in enumerate(convolutions):
            layer.weight.data, layer.bias.data = state[f"conv{k}.weight"], state[f"conv{k}.bias"]
        for spatial in (False, True):
            model.spatial = spatial
            key = f"lpips/{net}{'-spatial' if spatial else ''}"
            found[key] = {title: distances(model, *pair) for title, pair in realclips.pairs().items()}
    return found


def distances(model: Any, generated: np.ndarray, real: np.ndarray) -> list[float]:
    def scaled(images: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1

    with torch.inference_mode():
        return [
            float(model(scaled(one[None]), scaled(other[None])).double().mean())
            for one, other in zip(generated, real, strict=True)
        ]


def with_torchmetrics() -> dict[str, Any]:
    """PSNR of the pairs and SSIM of the pixels whose window lies inside, frame by frame; Fréchet and kernel distance
    of seeded features."""
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
    from torchmetrics.image.fid import _compute_fid
    from torchmetrics.image.kid import poly_mmd

    def each(score: Callable[..., torch.Tensor]) -> dict[str, list[float]]:
        found = {}
        for title, (generated, real) in realclips.pairs().items():
            one, other = (torch.from_numpy(side).permute(0, 3, 1, 2).double() for side in (generated, real))
            found[title] = [float(score(one[[k]], other[[k]], data_range=255.0)) for k in range(len(one))]
        return found

    def inside(one: torch.Tensor, other: torch.Tensor, data_range: float) -> torch.Tensor:
        options: dict[str, Any] = {"sigma": 1.5, "data_range": data_range, "return_full_image": True}
        _, full = structural_similarity_index_measure(one, other, **options)
        return full[..., 5:-5, 5:-5].mean()

    a, b = (torch.from_numpy(side) for side in features())
    moments = [part for side in (a, b) for part in (side.mean(dim=0), side.T.cov())]
    return {
        "psnr/frame-mean": each(peak_signal_noise_ratio),
        "ssim/gaussian": each(inside),
        "frechet": float(_compute_fid(*moments)),
        "mmd": float(poly_mmd(a[:150], b, degree=3, gamma=None, coef=1.0)),
    }


def features() -> tuple[np.ndarray, np.ndarray]:
    """(200, 32) and (150, 32) float64 of order 1."""
    rng = np.random.default_rng(7)
    mixing = rng.standard_normal((32, 32)) / 6
    return rng.standard_normal((200, 32)) @ mixing, rng.standard_normal((150, 32)) + 0.3


def with_cpbd() -> dict[str, Any]:
    """python-cpbd on the grey values of PIL; what SciPy and scikit-image have renamed since is put where it looks."""
    import scipy.ndimage
    from PIL import Image

    scipy.ndimage.imread = None
    edges: Any = types.ModuleType("skimage.filters.edges")
    edges.HSOBEL_WEIGHTS = np.array([[1, 2, 1], [0, 0, 0], [-1, -2, -1]]) / 4.0
    sys.modules["skimage.filters.edges"] = edges
    from cpbd.compute import compute

    return {
        "cpbd/python-cpbd": {
            title: [float(compute(np.asarray(Image.fromarray(frame).convert("L"), np.float64))) for frame in pair[0]]
            for title, pair in realclips.pairs().items()
        }
    }


def with_speech_features() -> dict[str, Any]:
    """Every tenth row of the MFCC of the sounds."""
    from python_speech_features import mfcc

    rows = {name: mfcc(realclips.samples(name), 16_000)[::10].round(10).tolist() for name in realclips.SPEECH}
    return {"mfcc": rows}


def with_scenedetect() -> dict[str, Any]:
    """Frames at which ContentDetector sees a cut in the spliced films."""
    from scenedetect import ContentDetector, FrameTimecode

    detector = ContentDetector()

    def cuts() -> Iterator[int]:
        for k, frame in enumerate(realclips.spliced()):
            for found in detector.process_frame(FrameTimecode(k, 25.0), np.ascontiguousarray(frame[..., ::-1])):
                yield found.frame_num

    return {"cuts": sorted(cuts())}


if __name__ == "__main__":
    main()
