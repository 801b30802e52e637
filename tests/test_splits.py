"""Splits, presets and their cards: from names alone, nothing is decoded."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import presets, splits
from pipelines.datasets import Source, demo, hdtf
from pipelines.manifest import EMOTIONS
from pipelines.splits import SPLITS, Card, SplitError, by_hash

FRACTIONS = [(0.8, 0.1, 0.1), (0.5, 0.0, 0.5), (1.0, 0.0, 0.0)]


def source(identity: str, emotion: str, take: int, sentence: str | None = None) -> Source:
    name = f"{identity}_{emotion}_{take}"
    return Source(name, "mead", identity, emotion, 1, "front", sentence, f"{take:03}", f"{name}.mp4", None)


people = st.dictionaries(
    st.from_regex(r"[MW]0[0-9]{2}", fullmatch=True),
    st.dictionaries(st.sampled_from(EMOTIONS), st.integers(1, 12), min_size=1),
    min_size=1,
    max_size=16,
)
few = settings(max_examples=40)  # of up to 1,536 recordings each


def recordings(counts: dict[str, dict[str, int]]) -> list[Source]:
    """A take's number is its sentence here."""
    return [source(i, e, k, f"s{k}") for i, emotions in counts.items() for e, n in emotions.items() for k in range(n)]


def where(card: Card, sources: list[Source], key: Callable[[Source], str | None]) -> dict[str | None, set[str]]:
    """The splits in which each identity, sentence ... occurs."""
    found: dict[str | None, set[str]] = {}
    for s in sources:
        if s.clip_id in card.assignment:
            found.setdefault(key(s), set()).add(card.assignment[s.clip_id])
    return found


# --- the ratio -------------------------------------------------------------------------------------------------------


@few
@given(people, st.integers(0, 5), st.sampled_from(FRACTIONS))
def test_ratio_never_splits_an_identity(counts, seed: int, fractions: tuple[float, float, float]) -> None:
    sources = recordings(counts)
    card = splits.ratio(sources, fractions, seed)
    everyone = [i for names in card.identities.values() for i in names]
    assert sorted(everyone) == sorted(counts)  # each once
    assert sum(n for c in card.counts.values() for n in c.values()) == len(sources) == len(card.assignment)
    assert all(len(found) == 1 for found in where(card, sources, lambda s: s.identity).values())
    assert card == splits.ratio(list(reversed(sources)), fractions, seed)  # the order of the tree does not matter
    wanted = [s for s, f in zip(SPLITS, fractions, strict=True) if f]
    if len(counts) >= len(wanted):
        assert all(card.identities[s] for s in wanted)
    assert not [s for s, f in zip(SPLITS, fractions, strict=True) if not f and card.identities[s]]


@few
@given(people, st.integers(0, 5), st.sampled_from(FRACTIONS), st.sampled_from(["sentence", "both", "clip"]))
def test_ratio_by_other_units(counts, seed: int, fractions: tuple[float, float, float], by: splits.By) -> None:
    sources = recordings(counts)
    card = splits.ratio(sources, fractions, seed, by)
    assert card == splits.ratio(list(reversed(sources)), fractions, seed, by)
    assert card.outside + len(card.assignment) == len(sources)
    assert card.outside == 0 or by == "both"
    if by != "clip":
        assert all(len(found) == 1 for found in where(card, sources, lambda s: s.sentence).values())
    overlap = {name for name, found in where(card, sources, lambda s: s.identity).items() if len(found) > 1}
    assert overlap == set(card.shared())
    assert not (by == "both" and overlap)
    assert ("identities may overlap" in card.text()) == bool(overlap)
    assert json.loads(card.json())["shared_identities"] == sorted(overlap)


@few
@given(people, st.sampled_from(EMOTIONS), st.sampled_from(["identity", "sentence", "both", "clip"]))
def test_a_held_out_emotion_is_in_the_test_split_alone(counts, emotion: str, by: splits.By) -> None:
    sources = recordings(counts)
    card = splits.ratio(sources, (0.5, 0.2, 0.3), 0, by)
    if not card.counts["test"].get(emotion):
        with pytest.raises(SplitError, match="the test split has none of it"):
            splits.hold_out(card, sources, [emotion])
        return
    held = splits.hold_out(card, sources, [emotion])
    assert {s for s in SPLITS if held.counts[s].get(emotion)} == {"test"}
    assert held.counts["test"] == card.counts["test"]
    assert held.digests["test"] == card.digests["test"]
    assert held.digest != card.digest
    assert held.outside - card.outside == len(card.assignment) - len(held.assignment)
    kept = {c: s for c, s in card.assignment.items() if s == "test" or f"_{emotion}_" not in c}
    assert held.assignment == kept
    assert f"without {emotion}" in held.text()


def test_both_counts_what_it_drops() -> None:
    sources = [source(f"M{i:03}", e, k, f"s{k}") for i in range(20) for e in ("sad", "happy") for k in range(10)]
    card = splits.ratio(sources, (0.8, 0.1, 0.1), 0, "both")
    assert {s: len(card.identities[s]) for s in SPLITS} == {"train": 16, "val": 2, "test": 2}
    assert {s: sum(card.counts[s].values()) for s in SPLITS} == {"train": 2 * 16 * 8, "val": 4, "test": 4}
    assert card.outside == 400 - 264
    assert "136 recordings are outside this split" in card.text()
    assert "sentences: train 8, val 1, test 1" in card.text()


def test_mead_cannot_be_split_by_sentence() -> None:
    for by in ("sentence", "both"):
        with pytest.raises(SplitError, match="mead does not tell which sentence is said"):
            splits.ratio([source("M003", "sad", 1)], (0.8, 0.1, 0.1), 0, by)


def test_ratio_is_stratified_by_emotion() -> None:
    """Half of forty actors recorded anger only, half joy only: each split gets its share of both."""
    sources = [source(f"M{i:03}", "angry" if i % 2 else "happy", k) for i in range(40) for k in range(10)]
    for seed in range(5):
        card = splits.ratio(sources, (0.8, 0.1, 0.1), seed)
        for split, share in zip(SPLITS, (0.8, 0.1, 0.1), strict=True):
            for emotion in ("angry", "happy"):
                assert abs(card.counts[split].get(emotion, 0) / 200 - share) <= 0.05
    assert splits.ratio(sources, (0.8, 0.1, 0.1), 0).digest != splits.ratio(sources, (0.8, 0.1, 0.1), 1).digest


def test_the_digest_is_of_the_assignment_alone() -> None:
    few = [source("M003", "sad", 1), source("M005", "sad", 1)]
    many = [source(i, e, k) for i in ("M003", "M005") for e in EMOTIONS for k in range(3)]
    split_of = {"M003": "train", "M005": "test"}
    one, other = splits.make_card("list", split_of, few), splits.make_card("list", split_of, many)
    assert (one.digest, one.digests) == (other.digest, other.digests)
    without = splits.make_card("list", split_of, many, without={"test": ["M005 sad"]})
    assert without.digests["train"] == one.digests["train"]
    assert without.digests["test"] != one.digests["test"]
    assert without.outside == 3


def test_a_list_does_not_leave_out_whom_it_does_not_name(tmp_path: Path) -> None:
    sources = [source("M003", "sad", 1), source("W009", "sad", 1)]
    path = tmp_path / "split ü.csv"
    path.write_text("\ufeffidentity,split\nM003,train\nW009,test\nM099,val\n", encoding="utf-8")
    card = splits.from_list(sources, path)
    assert card.identities == {"train": ("M003",), "val": ("M099",), "test": ("W009",)}
    assert card.assignment == {"M003_sad_1": "train", "W009_sad_1": "test"}
    assert card.counts["val"] == {}
    for text, message in (
        ("identity,split\nM003,train\n", "'W009' is in the dataset but not in the split"),
        ("identity,split\nM003,train\nM003,test\n", "line 3: 'M003' is in 'train' already"),
        ("identity,split\nM003,training\n", "line 2: 'training' is none of"),
        ("M003,train\n", "header identity,split"),
        ("", "header identity,split"),
    ):
        path.write_text(text)
        with pytest.raises(SplitError, match=message):
            splits.from_list(sources, path)
    with pytest.raises(SplitError, match="add up to 1"):
        splits.ratio(sources, (0.8, 0.8, 0.1), 0)
    with pytest.raises(SplitError, match="from 0 to 1"):
        splits.ratio(sources, (0.5, float("nan"), 0.5), 0)


def test_the_demo_has_its_own_split() -> None:
    sources = [source("W101", "happy", 1), source("W107", "happy", 1)]
    card = demo.split(sources)
    assert card.assignment == {"W101_happy_1": "train", "W107_happy_1": "test"}
    assert "morph" in card.note
    with pytest.raises(SplitError, match="'M003' is in the dataset but not in the split 'demo'"):
        demo.split([*sources, source("M003", "happy", 1)])


# --- the sampling of EAT-Face ----------------------------------------------------------------------------------------


@few
@given(people, st.integers(1, 400), st.randoms(use_true_random=False))
def test_a_sample_is_exact_in_number_and_even(counts, count: int, random) -> None:
    sources = recordings(counts)
    drawn = presets.sample(sources, count)
    assert len(drawn) == len({s.clip_id for s in drawn}) == min(count, len(sources))
    taken = Counter((s.identity, s.emotion) for s in drawn)
    most = max(taken.values())
    for identity, emotions in counts.items():
        for emotion, n in emotions.items():
            assert taken[identity, emotion] >= min(n, most - 1)  # to one, where the cell allows it
    random.shuffle(sources)
    assert {s.clip_id for s in presets.sample(sources, count)} == {s.clip_id for s in drawn}


@few
@given(people)
def test_halves_by_clip_halve_every_cell(counts) -> None:
    sources = recordings(counts)
    halves = presets.halves_by_clip(sources)
    assert halves == presets.halves_by_clip(sources[::-1])
    number = Counter(halves.values())
    assert number["train"] - number["test"] in (0, 1)
    for identity, emotions in counts.items():
        for emotion, n in emotions.items():
            train = sum(halves[f"{identity}_{emotion}_{k}"] == "train" for k in range(n))
            assert abs(2 * train - n) <= 1


def test_identities_get_alike_many_of_a_sample() -> None:
    sources = recordings({f"M{i:03}": dict.fromkeys(EMOTIONS, 12) for i in range(30)})
    drawn = presets.sample(sources, 30 * 8 * 3 + 75)
    assert set(Counter(s.identity for s in drawn).values()) == {26, 27}
    assert max(Counter(s.emotion for s in drawn).values()) - min(Counter(s.emotion for s in drawn).values()) <= 8


# --- the presets -----------------------------------------------------------------------------------------------------

UNLISTED = ("M041", "M042", "W017", "W019", "W021")
GAPPY = ("M037", "M039", "M040", *(f"W{n:03}" for n in (23, 24, 25, 26, 28, 29, 33, 35, 36, 37, 38, 40)))


@pytest.fixture(scope="module")
def mead_sources() -> list[Source]:
    """MEAD as released, by the counted gaps: 48 actors; 30 takes a cell, 40 of neutral, 29 in 127 cells and 12 in
    three, W017 with the view down alone, and 15 actors whose numbers have gaps up to 58 (neutral 77)."""
    people = sorted((*presets.MEAD_LISTED, *UNLISTED))
    cells = [(p, e, level) for p in people for e in EMOTIONS for level in ((1,) if e == "neutral" else (1, 2, 3))]
    names = by_hash("gaps", [f"{p} {e} {n}" for p, e, n in cells if p != "M030" and e != "neutral"])
    fewer = dict.fromkeys(names[:127], 29) | dict.fromkeys(names[127:130], 12)
    sources = []
    for person, emotion, level in cells:
        number = fewer.get(f"{person} {emotion} {level}", 40 if emotion == "neutral" else 30)
        last = (77 if emotion == "neutral" else 58) if person in GAPPY else number
        view = "down" if person == "W017" else "front"
        for take in sorted(by_hash(f"{person} {emotion} {level}", [f"{k:03}" for k in range(1, last + 1)])[:number]):
            clip_id = f"{person}_{view}_{emotion}_{level}_{take}"
            path = f"{person}/video/{view}/{emotion}/level_{level}/{take}.mp4"
            sources.append(Source(clip_id, "mead", person, emotion, level, view, None, take, path, None))
    return sources


def crema_d_sources(real: Callable[[str], Path]) -> list[Source]:
    words = {"ANG": "angry", "DIS": "disgusted", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
    with real("crema_d/SentenceFilenames.csv").open() as file:
        stems = [row["Filename"] for row in csv.DictReader(file)]
    parts = [(stem, *stem.split("_")) for stem in stems]
    return [Source(n, "crema-d", i, words[e], None, "front", s, s, f"{n}.flv", None) for n, i, s, e, _ in parts]


def hdtf_lists(real: Callable[[str], Path]) -> list[tuple[str, str, int]]:
    """(subset, video, number of clips) of the published annotation lists."""
    found = []
    for subset in ("RD", "WDA", "WRA"):
        lines = real(f"hdtf/HDTF_dataset/{subset}_annotion_time.txt").read_text("utf-8-sig").splitlines()
        found += [(subset, line.split()[0][:-4], len(line.split()) - 1) for line in lines if line.strip()]
    return found


def hdtf_sources(videos: list[tuple[str, str, int]]) -> list[Source]:
    return [
        Source(f"{subset}_{name}_{k}", "hdtf", hdtf.identity_key(name), "unlabelled", None, "front", None, str(k),
               f"{name}.mp4", None, extra={"origin": name})
        for subset, name, clips in videos
        for k in range(clips)
    ]  # fmt: skip


# Of the cards above: whole and test. Another value is another split: labs could no longer compare.
MEAD_DIGESTS = {
    "dice-talk-mead": ("08f981766baef045", "75963ce79150af40"),
    "eat-mead": ("37c31d14e795b697", "14ce1117ef71c7e3"),
    "edtalk-mead": ("3f8a1917115e0c24", "9074be138ea405e3"),
    "eat-face-mead": ("5111388ea978ec12", "09eb06478b05521d"),
    "eat-face-mead-clip-half": ("516ceb6d48a8ca4e", "2190e0feabb5d40b"),
}
CREMA_D_DIGESTS = {
    "eat-face-crema-d": ("14a65eff9909dbcc", "9aba469164704e46"),
    "eat-face-crema-d-clip-half": ("20152f16a049661e", "4c65f4829701fdf4"),
}
HDTF_DIGESTS = ("fcc65123769fec38", "5582946c06518eab")


def digests(card: Card) -> tuple[str, str]:
    return card.digest[:16], card.digests["test"][:16]


def test_every_preset_is_pinned() -> None:
    assert {*MEAD_DIGESTS, *CREMA_D_DIGESTS, "dice-talk-hdtf"} == set(presets.PRESETS)


@pytest.mark.parametrize("name", MEAD_DIGESTS)
def test_the_presets_of_mead(mead_sources: list[Source], name: str) -> None:
    card = presets.preset(name, mead_sources)
    assert digests(card) == MEAD_DIGESTS[name]
    assert card == presets.preset(name, mead_sources[::-1])
    assert card.rule == name
    assert bool(card.shared()) == ("clip-half" in name)
    assert card.counts["val"] == {}
    for split in SPLITS:
        assert sum(card.counts[split].values()) == sum(s == split for s in card.assignment.values())


def test_whom_the_papers_test(mead_sources: list[Source]) -> None:
    by_hash_alone = tuple(sorted(by_hash(0, presets.MEAD_LISTED)[:5]))
    assert len(presets.MEAD_LISTED) == 43
    assert by_hash_alone == presets.DICE_TALK_TEST
    dice = presets.preset("dice-talk-mead", mead_sources)
    assert dice.identities["test"] == presets.DICE_TALK_TEST
    assert len(dice.identities["train"]) == 43
    eat, edtalk = (presets.preset(name, mead_sources) for name in ("eat-mead", "edtalk-mead"))
    assert eat.identities["test"] == edtalk.identities["test"] == ("M003", "M030", "W009", "W015")
    assert set(eat.identities["train"]) - set(edtalk.identities["train"]) == set(UNLISTED)
    assert len(edtalk.identities["train"]) == 39
    lacks = {s.emotion for s in mead_sources if s.identity == "M030" and s.clip_id not in edtalk.assignment}
    assert lacks == {"angry", "contempt", "disgusted", "fear"}
    assert "without M030 angry, M030 contempt, M030 disgusted, M030 fear" in edtalk.text()


def test_eat_face_samples_mead_evenly(mead_sources: list[Source]) -> None:
    card = presets.preset("eat-face-mead", mead_sources)
    chosen = [s for s in mead_sources if s.clip_id in card.assignment]
    assert len(chosen) == 1472
    assert {s.view for s in chosen} == {"front"}
    assert {s.intensity for s in chosen if s.emotion != "neutral"} == {2}
    assert set(Counter((s.identity, s.emotion) for s in chosen).values()) == {3, 4}
    assert len(set(Counter(s.identity for s in chosen).values())) == 2
    clip_half = presets.preset("eat-face-mead-clip-half", mead_sources)
    assert clip_half.assignment.keys() == card.assignment.keys()
    assert Counter(clip_half.assignment.values()) == {"train": 736, "test": 736}
    assert 0.48 <= sum(card.counts["train"].values()) / 1472 <= 0.52
    assert "identities may overlap: 47 in several splits" in clip_half.text()
    assert "no identity in two splits" in card.text()
    few = [s for s in mead_sources if s.identity in ("M003", "W009")]
    pool = sum(s.intensity == (1 if s.emotion == "neutral" else 2) for s in few)
    card = presets.preset("eat-face-mead", few)
    assert len(card.assignment) == pool
    assert f"no more than {pool} such recordings: all are used" in card.note


def test_trees_that_lack_people(mead_sources: list[Source]) -> None:
    part = [s for s in mead_sources if s.identity in ("M003", "M005", "W015")]
    card = presets.preset("eat-mead", part)
    assert card.identities["test"] == ("M003", "W015")
    assert "This tree lacks M030, W009 of the 4 to test" in card.note
    with pytest.raises(SplitError, match="none of the identities to test: M011, M028, M030, W024, W036"):
        presets.preset("dice-talk-mead", part)
    with pytest.raises(SplitError, match="the split eat-face-crema-d is of crema-d, not of mead"):
        presets.preset("eat-face-crema-d", part)
    with pytest.raises(SplitError, match="no split is named 'eat'; known: ratio, list, dice-talk-mead"):
        presets.preset("eat", part)
    down = [s for s in mead_sources if s.identity == "W017"]
    with pytest.raises(SplitError, match="no recording that EAT-Face samples from"):
        presets.preset("eat-face-mead", down)


@pytest.mark.parametrize("name", CREMA_D_DIGESTS)
def test_the_presets_of_crema_d(real: Callable[[str], Path], name: str) -> None:
    sources = crema_d_sources(real)
    assert len(sources) == 7442
    card = presets.preset(name, sources)
    assert digests(card) == CREMA_D_DIGESTS[name]
    taken = Counter(s.identity for s in sources if s.clip_id in card.assignment)
    assert set(taken.values()) == {20}
    assert len(taken) == 91
    assert len(card.shared()) == (91 if "clip-half" in name else 0)


def test_crema_d_can_be_split_by_sentence(real: Callable[[str], Path]) -> None:
    sources = crema_d_sources(real)
    card = splits.ratio(sources, (0.8, 0.1, 0.1), 0, "both")
    for key in (lambda s: s.sentence, lambda s: s.identity):
        assert all(len(found) == 1 for found in where(card, sources, key).values())
    assert all(card.counts[split] for split in SPLITS)
    assert card.outside > 0


def test_the_preset_of_hdtf(real: Callable[[str], Path]) -> None:
    videos = hdtf_lists(real)
    assert tuple(presets.hdtf_draw(name for _, name, _ in videos)) == presets.HDTF_TEST
    assert len({hdtf.identity_key(name) for name in presets.HDTF_TEST}) == 20
    assert not {name for subset, name, _ in videos if subset == "RD"} & set(presets.HDTF_TEST)
    sources = hdtf_sources(videos)
    card = presets.preset("dice-talk-hdtf", sources)
    assert digests(card) == HDTF_DIGESTS
    assert card == presets.preset("dice-talk-hdtf", sources[::-1])
    tested = {s.extra["origin"] for s in sources if card.assignment.get(s.clip_id) == "test"}
    assert tested == set(presets.HDTF_TEST)
    assert not card.shared()
    neither = {s.extra["origin"] for s in sources if s.clip_id not in card.assignment}
    assert {hdtf.identity_key(name) for name in neither} <= set(card.identities["test"])
    assert f"{len(neither)} other videos of the tested people are in neither split" in card.note
    fewer = [s for s in sources if s.extra["origin"] != "TimScott"]
    assert "This tree lacks TimScott" in presets.preset("dice-talk-hdtf", fewer).note
    with pytest.raises(SplitError, match="none of the 20 videos to test"):
        presets.preset("dice-talk-hdtf", hdtf_sources([("RD", "Radio1", 1)]))
