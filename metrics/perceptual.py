"""LPIPS of a video against the real one, frame by frame.

The spatial form, which common_metrics_on_video_quality prints, differs from the plain one by up to 1e-4 on small
pictures: resizing a layer's map to the frame weighs its border differently.
"""

from __future__ import annotations

from metrics.base import Features, Metric, register


def mean_lpips(pair: Features) -> float:
    """Mean over frames of each frame's LPIPS: over five layers, the sum of the mean over the layer's pixels of the
    weighted squared difference of unit feature vectors. RGB is scaled to [-1, 1]; 0 for equal frames."""
    return float(pair["lpips"].mean())


def mean_lpips_spatial(pair: Features) -> float:
    """Mean over frames and pixels of the LPIPS map: the layers' maps resized to the frame (bilinear about pixel
    centres) and added up. RGB is scaled to [-1, 1]; 0 for equal frames."""
    return float(pair["lpips_spatial"].mean())


for _net, _title in (("alex", "AlexNet"), ("vgg", "VGG-16")):
    for _name, _compute, _label in (
        (_net, mean_lpips, f"LPIPS ({_net})"),
        (f"{_net}-spatial", mean_lpips_spatial, f"LPIPS ({_net}, spatial)"),
    ):
        register(
            Metric(
                name=f"lpips/{_name}",
                version=1,
                needs=(("pair", f"lpips-{_net}"),),
                level="clip",
                unit="",
                direction="lower",
                compute=_compute,
                label=_label,
                digits=4,
                source=f"Zhang et al. 2018, LPIPS 0.1 with {_title}, [-1, 1]"
                + (", spatial maps averaged as in common_metrics_on_video_quality" if "spatial" in _name else ""),
            )
        )
