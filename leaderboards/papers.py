"""The tables of DICE-Talk and EAT-Face: columns, groups, and which protocol and metric of ours fills them."""

from __future__ import annotations

from leaderboards.clusterings import FAMILY
from leaderboards.layouts import Layout
from leaderboards.published import DICE_TALK, EAT_FACE
from leaderboards.tables import Column

_MEAD = "MEAD"
_OUT = "Out of Domain Emotion Testset"
_STUDY = "Out of Domain"
_EMOTIONS = ("Angry", "Contempt", "Disgusted", "Fear", "Happy", "Neutral", "Sad", "Surprised")


def _text(label: str, field: str = "", heading: str = "") -> Column:
    return Column(field, label, "text", 0, heading=heading)


def _sync(variant: str, group: str, heading: str) -> tuple[Column, ...]:
    return (
        Column(f"lse-c/{variant}", "Sync-C", "higher", 4, group, heading),
        Column(f"lse-d/{variant}", "Sync-D", "lower", 4, group, heading),
    )


def _frechet(group: str, heading: str) -> tuple[Column, ...]:
    return (
        Column("fvd/i3d-16f", "FVD", "lower", 4, group, heading),
        Column("fid/torch-fidelity", "FID", "lower", 4, group, heading),
    )


def _emo_score(group: str, heading: str) -> tuple[Column, ...]:
    return (
        Column("emo-score/emo-affectnet", "Emo-Score", "higher", 4, group, heading),
        Column("emo-score-neutral/emo-affectnet", "Neutral", "higher", 4, group, heading),
        Column("emo-score-non-neutral/emo-affectnet", "Non-neutral", "higher", 4, group, heading),
    )


def _rating(aspect: str, digits: int, group: str = "", heading: str = "", unit: str = "") -> Column:
    return Column(f"rating/{aspect}", aspect, "higher", digits, group, heading, unit)


def _scales(aspects: tuple[str, ...], lowest: float, highest: float) -> dict[str, tuple[float, float]]:
    return dict.fromkeys(aspects, (lowest, highest))


_DIMENSIONS = ("Emotion", "Lip Sync", "Quality", "Smoothness")
_ASPECTS = ("Emo.", "Vis-Q.", "Sync.", "ID-P")

_ALL = (
    Layout(
        "dice-talk-table-1",
        "DICE-Talk",
        DICE_TALK,
        "Table 1",
        "Quantitative comparisons with the state-of-the-arts on the MEAD and Out of Domain test set.",
        "Method",
        (
            _text("Condition", "driven_by"),
            *_frechet(_MEAD, _MEAD),
            *_sync("syncnet-python-min50", _MEAD, _MEAD),
            *_emo_score(_MEAD, _MEAD),
            *_sync("syncnet-python-min50", _OUT, _OUT),
            *_emo_score(_OUT, _OUT),
        ),
        {_MEAD: "dice-talk-mead", _OUT: "dice-talk-ood"},
        blocks_by="Condition",
    ),
    Layout(
        "dice-talk-table-2",
        "DICE-Talk",
        DICE_TALK,
        "Table 2",
        "Quantitative comparisons with the state-of-the-arts on the HDTF test set.",
        "Method",
        (_text("Condition", "driven_by"), *_frechet("HDTF", ""), *_sync("syncnet-python", "HDTF", "")),
        {"HDTF": "dice-talk-hdtf"},
        blocks_by="Condition",
    ),
    Layout(
        "dice-talk-table-3",
        "DICE-Talk",
        DICE_TALK,
        "Table 3",
        "User study comparison on out of domain dataset.",
        "Method",
        tuple(_rating(aspect, 4, _STUDY) for aspect in _DIMENSIONS),
        {_STUDY: ""},
        arrows=False,
        scales=_scales(_DIMENSIONS, 1, 5),
    ),
    Layout(
        "dice-talk-table-4",
        "DICE-Talk",
        DICE_TALK,
        "Table 4",
        "Ablation studies on our method.",
        "Methods",
        (Column("f-sim/w600k_mbf", "F-SIM", "higher", 4, _STUDY), *_emo_score(_STUDY, "")),
        {_STUDY: "dice-talk-ood"},
    ),
    Layout(
        "dice-talk-table-5",
        "DICE-Talk",
        DICE_TALK,
        "Table 5",
        "Comparison of clustering strength on different emotions. "
        "The higher value means the better clustering effects.",
        "Input",
        tuple(
            Column(f"{FAMILY}-{emotion}/centroid", emotion, "higher", 2)
            for emotion in ("angry", "contempt", "disgusted", "happy")
        ),
        {"": ""},
        arrows=False,
    ),
    Layout(
        "eat-face-table-1",
        "EAT-Face",
        EAT_FACE,
        "Table I",
        "Quantitative comparison with other methods",
        "Method",
        (
            _text("w/Emo.", "controls_emotion"),
            Column("psnr/frame-mean", "PSNR", "higher", 4, heading="Reconstruction Quality"),
            Column("ssim/gaussian", "SSIM", "higher", 4, heading="Reconstruction Quality"),
            Column("cpbd/python-cpbd", "CPBD", "higher", 4, heading="Reconstruction Quality"),
            Column("lpips/alex", "LPIPS", "lower", 4, heading="Perceptual Similarity"),
            Column("fid/torch-fidelity", "FID", "lower", 4, heading="Perceptual Similarity"),
            Column("lse-d/syncnet-python-min50", "LSE-D", "lower", 4, heading="Synchronization"),
            Column("lse-c/syncnet-python-min50", "LSE-C", "higher", 4, heading="Synchronization"),
            Column("csim/arcface-r50-to-frame", "CSIM", "higher", 4, heading="ID Preservation"),
        ),
        {_MEAD: "eat-face-mead", "CREMA-D": "eat-face-crema-d"},
        stacked="Dataset",
    ),
    Layout(
        "eat-face-table-2",
        "EAT-Face",
        EAT_FACE,
        "Table II",
        "Quantitative evaluation results of emotion control",
        "Method",
        (
            *(Column(f"emo-acc-{e.lower()}/vgg16", "Emo-Acc.", "higher", 2, e, unit="%") for e in _EMOTIONS),
            Column("emo-acc/vgg16", "Emo-Acc.", "higher", 2, "Average Emo-Acc.", unit="%"),
        ),
        {_MEAD: "eat-face-mead"},
        arrows=False,
        folded=(
            *((_EMOTIONS[at], at, _EMOTIONS[at + 4], at + 4) for at in range(4)),
            ("Average Emo-Acc.", 8, "", ""),
        ),
        folded_headings=("Emotion Type", "Emo-Acc.", "Emotion Type", "Emo-Acc."),
    ),
    Layout(
        "eat-face-table-3",
        "EAT-Face",
        EAT_FACE,
        "Table III",
        "User study among different methods",
        "Method",
        tuple(_rating(aspect, 3) for aspect in _ASPECTS),
        {"": ""},
        scales=_scales(_ASPECTS, 1, 10),
    ),
    Layout(
        "eat-face-table-4",
        "EAT-Face",
        EAT_FACE,
        "Table IV",
        "Ablation study on emotion-related modules",
        "Method",
        (
            *(_text(module, heading="Components") for module in ("DM", "EVE", "FEC", "Emo")),
            Column("emo-acc/vgg16", "Emo-Acc.", "higher", 2, _MEAD, "Metrics", "%"),
            _rating("Tend.", 2, _MEAD, "Metrics", "%"),
        ),
        {_MEAD: "eat-face-mead"},
        scales=_scales(("Tend.",), 0, 1),
    ),
)

LAYOUTS = {layout.name: layout for layout in _ALL}
