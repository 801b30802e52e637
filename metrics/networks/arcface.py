"""ArcFace face embeddings, through ONNX Runtime.

Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019. Printed numbers mostly come
from InsightFace's ResNet-50 (`w600k_r50`, pack buffalo_l) or ResNet-100 (`glintr100`, antelopev2), which only their
authors distribute. `w600k_mbf` (MobileFaceNet on WebFace600K, buffalo_s) is far smaller, hence never just "ArcFace".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.base import ClipViews, Extractor, ExtractorSpec, MetricError, Weights, register
from metrics.networks.running import batches

DIMENSION = 512
BATCH = 32


class ArcFace:
    """Aligned faces of a clip to {"embedding": (T, 512) float32, "found": (T,) bool}.

    aligned112   (t, 112, 112, 3) uint8 RGB on the five-point template, with `found`; the input is
                 (x - 127.5) / 127.5. The template, x and y in px: eyes (38.2946, 51.6963) and (73.5318, 51.5014),
                 nose (56.0252, 71.7366), corners of the mouth (41.5493, 92.3655) and (70.7299, 92.2041)

    device is "cpu", whatever is asked for, where the installed ONNX Runtime has no CUDA.
    Embeddings are as the network gives them, not normalised; zeros where no face was found. Raises MetricError
    for a clip without frames, or of another type than uint8.
    """

    views: tuple[str, ...] = ("aligned112",)

    def __init__(self, name: str, weights: Weights, device: str) -> None:
        self.id = f"{name}@{weights.sha256[:8]}"
        self._weights = weights
        if device != "cpu":
            import onnxruntime

            # The ordinary onnxruntime has none, also on a machine where torch has its GPU.
            if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
                device = "cpu"
        self._device = device
        self.device = device.partition(":")[0]

    @cached_property
    def _session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # One thread: sums in one order on every machine; workers run clips in parallel.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3  # the file declares a batch of 1 at its output and warns at each larger one
        provider: Any = "CPUExecutionProvider"
        if self.device != "cpu":
            number = self._device.partition(":")[2]
            provider = ("CUDAExecutionProvider", {"device_id": int(number or 0), "use_tf32": 0})
        session = onnxruntime.InferenceSession(str(self._weights.path), options, providers=[provider])
        if self.device != "cpu" and "CUDAExecutionProvider" not in session.get_providers():
            # It goes on with the CPU where CUDA's libraries are lacking, but the features are filed under the GPU.
            raise RuntimeError("onnxruntime-gpu cannot start on the GPU; mend it, or use --device cpu")
        return session

    def __call__(self, chunks: Iterable[ClipViews]) -> dict[str, NDArray[Any]]:
        found: list[NDArray[np.bool_]] = []

        def faces() -> Iterable[NDArray[np.uint8]]:
            for chunk in chunks:
                found.append(chunk.view("found"))
                yield chunk.view("aligned112")[found[-1]]

        vectors = [self._forward(batch) for batch in batches(faces(), BATCH)]
        if not found:
            raise MetricError("no frames to look for a face in")
        seen = np.concatenate(found)
        embedding = np.zeros((len(seen), DIMENSION), np.float32)
        if vectors:
            embedding[seen] = np.concatenate(vectors)
        return {"embedding": embedding, "found": seen}

    def _forward(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        if faces.dtype != np.uint8:
            raise MetricError(f"faces are {faces.dtype}; expected uint8, 0-255 (scaled to [0, 1] already?)")
        images = ((faces.astype(np.float32) - 127.5) / 127.5).transpose(0, 3, 1, 2)
        (vectors,) = self._session.run(None, {self._session.get_inputs()[0].name: images})
        result: NDArray[np.float32] = vectors
        return result


# Extractor and network. The three take the same input; which one it is stands in the name.
VARIANTS = {
    "arcface-w600k_mbf": "arcface-w600k-mbf",
    "arcface-r50": "arcface-w600k-r50",
    "arcface-r100": "arcface-glint360k-r100",
}


def _make(name: str, weights: Mapping[str, Weights], options: Mapping[str, Any]) -> Extractor:
    return ArcFace(name, weights[VARIANTS[name]], options.get("device", "cpu"))


for _name, _network in VARIANTS.items():
    register(ExtractorSpec(name=_name, make=partial(_make, _name), weights=(_network,)))
