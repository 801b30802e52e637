"""Split presets: the splits of the papers, by name. Where a paper does not say which, ours is drawn and written down.

A draw sorts names by SHA-256 of "seed:name" with seed 0, so that it follows from the names alone, on every machine.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipelines.datasets import Source
from pipelines.datasets.hdtf import identity_key
from pipelines.splits import Card, SplitError, by_hash, make_card, pick_card, shares

SEED = 0

# EDTalk's published lists, counted: 39 to train on, 4 to test. Released besides: M041, M042, W017, W019, W021.
MEAD_LISTED = tuple(
    [f"M{n:03}" for n in (3, 5, 7, 9, 11, 12, 13, 19, *range(22, 36), 37, 39, 40)]
    + [f"W{n:03}" for n in (9, 11, 14, 15, 16, 18, 23, 24, 25, 26, 28, 29, 33, 35, 36, 37, 38, 40)]
)
EAT_TEST = ("M003", "M030", "W009", "W015")
EDTALK_LACKS = ("M030 angry", "M030 contempt", "M030 disgusted", "M030 fear")  # counted in its test list
# The first five of by_hash(SEED, MEAD_LISTED).
DICE_TALK_TEST = ("M011", "M028", "M030", "W024", "W036")
# The first 20 of hdtf_draw() over HDTF's annotation lists (369 videos).
HDTF_TEST = (
    "AdamSmith",
    "AndyKim",
    "BenCardin1",
    "BobCasey1",
    "CarlyFiorina0",
    "ChuckGrassley",
    "DeanHeller",
    "JimRisch",
    "JohnKasich0",
    "MarkwayneMullin",
    "MikeJohanns",
    "ReincePriebus",
    "SamBrownback",
    "ShelleyMooreCapito0",
    "SteveScalise1",
    "TammyBaldwin1",
    "TammyDuckworth",
    "TimScott",
    "ToddYoung",
    "VickyHartzler",
)


@dataclass(frozen=True, slots=True)
class Preset:
    """A paper's split: the dataset that it is of, and what makes its card from the recordings of a tree."""

    dataset: str
    make: Callable[[Sequence[Source]], Card]


def preset(name: str, sources: Sequence[Source]) -> Card:
    """The card of the preset on the recordings of a tree.

    Raises SplitError for an unknown name, for another dataset, and where nobody of the test split is in the tree.
    """
    if name not in PRESETS:
        raise SplitError(f"no split is named {name!r}; known: ratio, list, {', '.join(PRESETS)}")
    found = PRESETS[name]
    for source in sources:
        if source.dataset != found.dataset:
            raise SplitError(f"the split {name} is of {found.dataset}, not of {source.dataset}")
    card = found.make(sources)
    return dataclasses.replace(card, rule=name)


def _mead(sources: Sequence[Source], test: Sequence[str], note: str, *, listed: bool = False) -> Card:
    """`test` is tested and everybody else of the tree, or of EDTalk's lists alone, is trained on."""
    have = {source.identity for source in sources}
    tested = [name for name in test if name in have]
    if not tested:
        raise SplitError(f"the tree has none of the identities to test: {', '.join(test)}")
    if absent := [name for name in test if name not in have]:
        note += f" This tree lacks {', '.join(absent)} of the {len(test)} to test."
    split_of = dict.fromkeys(have & set(MEAD_LISTED) if listed else have, "train")
    split_of |= dict.fromkeys(tested, "test")
    without = {"test": EDTALK_LACKS} if listed and "M030" in have else None
    return make_card("", split_of, sources, note, others=True, without=without)


def dice_talk_mead(sources: Sequence[Source]) -> Card:
    """DICE-Talk § 4.1: "we select 5 identities out of 46 for testing on MEAD", without naming them."""
    note = (
        "DICE-Talk tests 5 of 46 identities and does not name them; these were drawn (seed 0) from the "
        f"{len(MEAD_LISTED)} of published lists. Everybody else of the tree is in train; the paper has no val."
    )
    return _mead(sources, DICE_TALK_TEST, note)


def eat_mead(sources: Sequence[Source]) -> Card:
    """The four test identities of EAT's published list."""
    return _mead(sources, EAT_TEST, "EAT's test identities; everybody else of the tree is in train.")


def edtalk_mead(sources: Sequence[Source]) -> Card:
    """EDTalk's published lists: 39 identities and the same four."""
    note = (
        f"EDTalk's lists: {len(MEAD_LISTED)} identities, others are outside. Its test list lacks M030 angry, "
        "contempt, disgusted and fear, which EAT tests."
    )
    return _mead(sources, EAT_TEST, note, listed=True)


def hdtf_draw(videos: Iterable[str], count: int = len(HDTF_TEST)) -> list[str]:
    """`count` source videos drawn from the names, at most one of an identity; never RD, whose speakers are
    unknown (Radio1, Radio2, ... count as one identity)."""
    drawn: dict[str, str] = {}
    for video in by_hash(SEED, videos):
        if identity_key(video) != "Radio" and len(drawn) < count:
            drawn.setdefault(identity_key(video), video)
    return sorted(drawn.values())


def dice_talk_hdtf(sources: Sequence[Source]) -> Card:
    """DICE-Talk § 4.1: "for HDTF, we randomly select 20 videos for testing", no identity in both; not named."""
    held = {source.extra["origin"] for source in sources}
    tested = [video for video in HDTF_TEST if video in held]
    if not tested:
        raise SplitError(f"the tree has none of the {len(HDTF_TEST)} videos to test, such as {HDTF_TEST[0]}")
    people = {source.identity for source in sources if source.extra["origin"] in tested}
    others = {source.extra["origin"] for source in sources if source.identity in people} - set(tested)
    split_of = dict.fromkeys(held - others, "train") | dict.fromkeys(tested, "test")
    chosen = {s.clip_id: split_of[s.extra["origin"]] for s in sources if s.extra["origin"] in split_of}
    note = (
        "DICE-Talk tests 20 videos and does not name them; these were drawn (seed 0) from the annotation lists, one "
        f"a person and none of RD, whose speakers are unknown. {len(others)} other videos of the tested people are in "
        "neither split."
    )
    if len(tested) < len(HDTF_TEST):
        note += f" This tree lacks {', '.join(v for v in HDTF_TEST if v not in tested)}."
    return pick_card("", "identity", chosen, sources, note, digest_of="video")


def sample(sources: Sequence[Source], count: int) -> list[Source]:
    """`count` recordings, evenly over (identity, emotion): where the cells have enough, no two differ by more than
    one, and neither do identities with the same cells. Recordings within a cell are drawn. Where there are not
    more than `count`, all."""
    cells: dict[tuple[str, str], dict[str, Source]] = defaultdict(dict)
    for source in sources:
        cells[source.identity, source.emotion][source.clip_id] = source
    emotions: dict[str, list[str]] = defaultdict(list)
    for identity, emotion in cells:
        emotions[identity].append(emotion)
    drawn = {cell: by_hash(SEED, clips) for cell, clips in cells.items()}
    # One from each cell in turn; within a turn, a first emotion of everybody, then a second.
    place = {
        (identity, emotion): (k, by)
        for by, identity in enumerate(by_hash(SEED, emotions))
        for k, emotion in enumerate(_rotated(by_hash(SEED, emotions[identity]), by))
    }
    order = sorted((turn, *place[cell], cell) for cell, clips in drawn.items() for turn in range(len(clips)))
    return [cells[cell][drawn[cell][turn]] for turn, _, _, cell in order[:count]]


def _rotated(values: list[str], by: int) -> list[str]:
    """So that the extra recordings of a last turn do not all go to one emotion."""
    by %= len(values)
    return values[by:] + values[:by]


def halves_by_clip(sources: Sequence[Source]) -> dict[str, str]:
    """clip_id -> train or test: half of every (identity, emotion) cell, to one recording, and half of them all."""
    cells: dict[str, list[str]] = defaultdict(list)
    for source in sources:
        cells[f"{source.identity} {source.emotion}"].append(source.clip_id)
    order = [clip_id for cell in by_hash(SEED, cells) for clip_id in by_hash(SEED, cells[cell])]
    return {clip_id: ("train", "test")[k % 2] for k, clip_id in enumerate(order)}


def _eat_face(sources: Sequence[Source], pool: Sequence[Source], count: int, reading: str, by_clip: bool) -> Card:
    if not pool:
        raise SplitError("the tree has no recording that EAT-Face samples from: view front at level_2, neutral level_1")
    chosen = sample(pool, count)
    note = (
        f"EAT-Face samples {count:,} recordings and tests about half of them. How is ours: drawn (seed 0) evenly over "
        f"identity and emotion ({reading}); "
    )
    if by_clip:
        halves = halves_by_clip(chosen)
        note += "half of each cell in train, as the paper never claims disjoint identities."
    else:
        split_of = shares(chosen, (0.5, 0.0, 0.5), SEED, "identity")
        halves = {source.clip_id: split_of[source.identity] for source in chosen}
        note += "half of the identities in train, though the paper never claims disjoint identities."
    if len(chosen) < count:
        note += f" This tree has no more than {len(chosen)} such recordings: all are used."
    return pick_card("", "clip" if by_clip else "identity", halves, sources, note)


def eat_face_mead(sources: Sequence[Source], by_clip: bool = False) -> Card:
    """EAT-Face, "Dataset": 1,472 videos of medium intensity and a front view, half of the frames for training."""
    pool = [s for s in sources if s.view == "front" and s.intensity == (1 if s.emotion == "neutral" else 2)]
    return _eat_face(sources, pool, 1472, "1,472 = 46 identities x 8 emotions x 4 is our reading", by_clip)


def eat_face_crema_d(sources: Sequence[Source], by_clip: bool = False) -> Card:
    """EAT-Face, "Dataset": 1,820 videos, half of the frames for training."""
    return _eat_face(sources, sources, 1820, "1,820 = 91 identities x 20 is our reading", by_clip)


PRESETS: Mapping[str, Preset] = {
    "dice-talk-mead": Preset("mead", dice_talk_mead),
    "dice-talk-hdtf": Preset("hdtf", dice_talk_hdtf),
    "eat-mead": Preset("mead", eat_mead),
    "edtalk-mead": Preset("mead", edtalk_mead),
    "eat-face-mead": Preset("mead", eat_face_mead),
    "eat-face-mead-clip-half": Preset("mead", lambda sources: eat_face_mead(sources, by_clip=True)),
    "eat-face-crema-d": Preset("crema-d", eat_face_crema_d),
    "eat-face-crema-d-clip-half": Preset("crema-d", lambda sources: eat_face_crema_d(sources, by_clip=True)),
}
