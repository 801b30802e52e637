"""CREMA-D's grammar, its metadata and its published defects: names alone, nothing is decoded."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import manifest
from pipelines.datasets import DatasetError, Finding, Index, crema_d
from pipelines.manifest import EMOTIONS

DEMOGRAPHICS = '"ActorID","Age","Sex","Race","Ethnicity"\n1001,51,"Male","Caucasian","Not Hispanic"\n'
VOTES = '"","FileName","VoiceVote","VoiceLevel","FaceVote","FaceLevel","MultiModalVote","MultiModalLevel"\n'


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def write(root: Path, name: str, text: str | bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def findings(root: Path, check: str, *, digests: bool = False) -> list[Finding]:
    return [f for f in crema_d.examine(root, crema_d.index(root), digests=digests) if f.check == check]


def digest_list(*rows: tuple[str, bytes]) -> str:
    return "path\tsha256\tbytes\n" + "".join(f"{p}\t{hashlib.sha256(b).hexdigest()}\t{len(b)}\n" for p, b in rows)


@pytest.fixture(scope="module")
def published(real: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Index]:
    """Empty files under all published names, with the published metadata and digests."""
    listed = real("crema_d/SentenceFilenames.csv")
    root = tmp_path_factory.mktemp("CREMA-D")
    shutil.copytree(listed.parent, root, dirs_exist_ok=True, copy_function=shutil.copyfile)
    root.chmod(0o755)
    stems = [row["Filename"] for row in csv.DictReader(listed.open())]
    for folder, suffix in (("VideoFlash", "flv"), ("AudioWAV", "wav"), ("AudioMP3", "mp3")):
        (root / folder).mkdir()
        for stem in stems:
            os.close(os.open(root / folder / f"{stem}.{suffix}", os.O_CREAT))
    return root, crema_d.index(root)


@pytest.fixture(scope="module")
def published_findings(published: tuple[Path, Index]) -> list[Finding]:
    return list(crema_d.examine(*published, digests=False))


def test_published_counts(published: tuple[Path, Index]) -> None:
    root, index = published
    sources = index.sources
    assert (len(sources), index.rejected, index.notes) == (7442, [], [])
    assert Counter(s.emotion for s in sources) == {
        **dict.fromkeys(("angry", "disgusted", "fear", "happy", "sad"), 1271),
        "neutral": 1087,
    }
    assert Counter(s.intensity for s in sources) == {None: 6077, 1: 455, 2: 455, 3: 455}
    assert {s.sentence for s in sources if s.intensity} == {"It's eleven o'clock"}
    people = {s.identity: s.extra["sex"] for s in sources}
    assert Counter(people.values()) == {"male": 48, "female": 43}
    assert {s.audio for s in sources} == {f"AudioWAV/{s.clip_id}.wav" for s in sources}
    # the list of the dataset is what the grammar and the five gaps give
    with (root / "SentenceFilenames.csv").open() as file:
        assert {row["Filename"] for row in csv.DictReader(file)} == set(crema_d.PUBLISHED)
    assert len(crema_d.PUBLISHED) == 7442


def test_published_votes_and_their_ties(published: tuple[Path, Index]) -> None:
    _, index = published
    ties = Counter[str]()
    for source in index.sources:
        for kind in ("voice", "face", "multimodal"):
            words = source.extra[f"{kind}_vote"].split(":")
            levels = [float(level) for level in source.extra[f"{kind}_level"].split(":")]
            assert set(words) <= set(EMOTIONS)
            assert len(words) == len(levels)
            assert all(0 <= level <= 100 for level in levels)
            ties[kind] += len(words) > 1
    assert ties == {"voice": 644, "face": 470, "multimodal": 420}
    by_id = {source.clip_id: source.extra for source in index.sources}
    assert by_id["1001_IEO_DIS_HI"]["face_vote"] == "angry:disgusted"
    assert by_id["1001_IEO_DIS_HI"]["face_level"] == "68.75:52.25"
    # recognised by the crowd as intended: 40.9 % of the ratings by voice, 58.2 % by face, 63.6 % by both (the paper,
    # abstract); the shares of majorities have the same order
    right = [sum(s.extra[f"{k}_vote"] == s.emotion for s in index.sources) for k in ("voice", "face", "multimodal")]
    assert right == sorted(right)
    assert 0.40 < right[0] / 7442 < right[2] / 7442 < 0.90


def test_published_defects(published_findings: list[Finding]) -> None:
    found = published_findings
    assert not [f for f in found if f.severity == "fatal"]
    assert {f.check for f in found} == {"published_defect", "conflicting_labels", "size"}
    assert {Path(f.item).stem for f in found if f.check == "published_defect"} == {
        "1076_MTI_NEU_XX",
        "1064_TIE_SAD_XX",
        "1064_IEO_DIS_MD",
    }
    conflicts = {f.item: f for f in found if f.check == "conflicting_labels"}
    assert {f.severity for f in conflicts.values()} == {"note"}
    wav = {item for item in conflicts if item.endswith(".wav")}
    assert wav == {f"AudioWAV/{s}_XX.wav" for s in ("1006_TIE_HAP", "1013_WSI_DIS", "1017_IWW_ANG")}
    told = conflicts["AudioWAV/1006_TIE_HAP_XX.wav"].detail
    assert "takes the sound of the video file when it has a track, else this file" in told
    assert told.endswith("in doubt are then 1006_TIE_HAP_XX, 1006_TIE_NEU_XX")
    six = conflicts["AudioMP3/1037_DFA_ANG_XX.mp3"].detail
    names = "1037_DFA_ANG_XX 1063_IEO_DIS_HI 1073_MTI_SAD_XX 1076_ITH_HAP_XX 1076_ITH_NEU_XX 1076_MTI_SAD_XX"
    assert ", ".join(names.split()) in six
    assert "prepare does not use it" in six
    assert len(conflicts) == 3 + 11  # the three of the WAVs are among the eleven of the MP3s


def test_empty_files_differ_from_the_published_sizes(published_findings: list[Finding]) -> None:
    sizes = [f for f in published_findings if f.check == "size"]
    assert len(sizes) == 11
    assert sizes[-1].detail == f"{3 * 7442 - 10} more files"
    assert sizes[0].item == "AudioMP3/1001_DFA_ANG_XX.mp3"
    assert sizes[0].detail.startswith("0 bytes, 73567 published")


def test_one_recording_with_everything(tmp_path: Path) -> None:
    root = touch(
        tmp_path / "raw data ü",
        "VideoFlash/1001_IEO_ANG_HI.flv",
        "AudioWAV/1001_IEO_ANG_HI.wav",
        "AudioMP3/1001_IEO_ANG_HI.mp3",
        "converted 25 fps é/1001_TSI_NEU_XX.MP4",
        "AudioMP3/1001_TSI_NEU_XX.mp3",
        "LICENSE.txt",
    )
    write(root, "VideoDemographics.csv", "\ufeff" + DEMOGRAPHICS.replace("\n", "\r\n\r\n"))
    write(
        root,
        "processedResults/summaryTable.csv",
        f'{VOTES}"1","1001_IEO_ANG_HI","A","60","A:D"," 68.75:52.25","A","7"\n',
    )
    index = crema_d.index(root)
    assert not index.rejected
    angry, neutral = index.sources
    assert (angry.dataset, angry.identity, angry.emotion, angry.intensity) == ("crema-d", "1001", "angry", 3)
    assert (angry.view, angry.take, angry.sentence) == ("front", "IEO", "It's eleven o'clock")
    assert (angry.video, angry.audio) == ("VideoFlash/1001_IEO_ANG_HI.flv", "AudioWAV/1001_IEO_ANG_HI.wav")
    assert angry.extra == {
        "age": "51",
        "sex": "male",
        "race": "Caucasian",
        "ethnicity": "Not Hispanic",
        "voice_vote": "angry",
        "voice_level": "60",
        "face_vote": "angry:disgusted",
        "face_level": "68.75:52.25",
        "multimodal_vote": "angry",
        "multimodal_level": "7",
    }
    assert (neutral.video, neutral.audio) == ("converted 25 fps é/1001_TSI_NEU_XX.MP4", "AudioMP3/1001_TSI_NEU_XX.mp3")
    assert neutral.intensity is None
    assert "voice_vote" not in neutral.extra
    assert "1001: neutral: 1001_DFA_NEU_XX, 1001_IEO_NEU_XX" in "\n".join(index.notes)
    assert "1002: every recording" in index.notes


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("VideoFlash/1092_DFA_ANG_XX.flv", "identity"),
        ("VideoFlash/1000_DFA_ANG_XX.flv", "identity"),
        ("VideoFlash/\u0661\u0660\u0660\u0661_DFA_ANG_XX.flv", "identity"),
        ("VideoFlash/1001_DFB_ANG_XX.flv", "sentence"),
        ("VideoFlash/1001_DFA_SUR_XX.flv", "emotion"),
        ("VideoFlash/1001_DFA_ang_XX.flv", "emotion"),
        ("VideoFlash/1001_DFA_ANG_XL.flv", "level"),
        ("VideoFlash/1001_DFA_ANG_XX\n.flv", "level"),
        ("VideoFlash/1001_DFA_ANG_XX (1).flv", "level"),
        ("VideoFlash/1001_DFA_ANG.flv", "unrecognised"),
        ("VideoFlash/1001_DFA_ANG_XX.txt", "unrecognised"),
        ("AudioWAV/1001_DFA_SAD_XX.wav", "no_video"),
        ("mp4/1001_IEO_ANG_HI.mp4", "duplicate"),
        ("AudioWAV/._1001_DFA_SAD_XX.wav", "hidden"),
        (os.fsdecode(b"caf\xe9/1001_DFA_SAD_XX.flv"), "path"),
    ],
)
def test_what_is_no_recording_is_listed(tmp_path: Path, name: str, reason: str) -> None:
    index = crema_d.index(touch(tmp_path, "VideoFlash/1001_IEO_ANG_HI.flv", name))
    assert [s.video for s in index.sources] == ["VideoFlash/1001_IEO_ANG_HI.flv"]
    (rejected,) = index.rejected
    assert rejected.reason == reason
    assert "\n" not in rejected.source + rejected.detail
    manifest.write_rejected(index.rejected, tmp_path / "rejected.parquet")


def test_a_clone_with_its_git_folder_and_copies(tmp_path: Path) -> None:
    root = touch(
        tmp_path,
        "a/1001_IEO_ANG_HI.flv",
        "VideoFlash/1001_IEO_ANG_HI.mp4",
        "AudioWAV/1001_IEO_ANG_HI.wav",
        "16k/1001_IEO_ANG_HI.wav",
        *(f".git/lfs/objects/{k}" for k in range(30)),
    )
    write(root, "VideoDemographics.csv", DEMOGRAPHICS)
    write(root, "a/VideoDemographics.csv", DEMOGRAPHICS.replace("51", "15"))
    index = crema_d.index(root)
    (source,) = index.sources
    assert (source.video, source.audio) == ("VideoFlash/1001_IEO_ANG_HI.mp4", "AudioWAV/1001_IEO_ANG_HI.wav")
    assert source.extra["age"] == "51"  # the file nearest to the root
    assert sorted((r.source, r.reason) for r in index.rejected) == [
        (".git", "hidden"),
        ("16k/1001_IEO_ANG_HI.wav", "duplicate"),
        ("a/1001_IEO_ANG_HI.flv", "duplicate"),
        ("a/VideoDemographics.csv", "duplicate"),
    ]


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40).filter(
    lambda name: name not in (".", "..")
)
NEARLY = st.builds(
    "{}_{}_{}_{}{}".format,
    st.sampled_from(["1001", "1091", "1092", "01001", "\uff11\uff10\uff10\uff11"]),
    st.sampled_from(["IEO", "DFA", "XXX", ""]),
    st.sampled_from(["ANG", "NEU", "CAL", "ang"]),
    st.sampled_from(["XX", "HI", "HI_XX", "XX "]),
    st.sampled_from([".flv", ".FLV", ".mp4", ".wav", ".mp3", ".txt", ""]),
)


@settings(max_examples=40)
@given(st.lists(st.one_of(NAMES, NEARLY), max_size=8, unique=True))
def test_every_file_is_used_or_listed(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    root = tmp_path_factory.mktemp("any")
    touch(root, "VideoFlash/1002_WSI_SAD_XX.flv", *(f"files/{name}" for name in names))
    index = crema_d.index(root)
    used = {path for s in index.sources for path in (s.video, s.audio)}
    recorded = {Path(s.video).stem for s in index.sources}
    assert all(s.emotion in EMOTIONS for s in index.sources)
    metadata = [n for n in names if n in crema_d.METADATA | crema_d.COMPANIONS]
    spare = [  # an MP3 beside the WAV of the same recording is the published layout
        n for n in names if n.lower().endswith(".mp3") and Path(n).stem in recorded and f"files/{n}" not in used
    ]
    taken = [n for n in names if f"files/{n}" in used]
    assert len(taken) + len(index.rejected) + len(spare) + len(metadata) == len(names)
    list(crema_d.examine(root, index, digests=False))


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("VideoDemographics.csv", "ActorID,Age\n1001,51\n", "line 1: 'Sex, Race, Ethnicity': column missing"),
        ("VideoDemographics.csv", "", "line 1: 'ActorID, Age, Sex, Race, Ethnicity': column missing"),
        ("VideoDemographics.csv", DEMOGRAPHICS.replace("51", "nan"), "line 2: 'nan': not an age"),
        ("VideoDemographics.csv", DEMOGRAPHICS.replace("51", "9" * 400), "line 2: '9999"),
        ("VideoDemographics.csv", DEMOGRAPHICS.replace('"Male"', "?"), "line 2: '?': neither Male nor Female"),
        ("VideoDemographics.csv", DEMOGRAPHICS.replace("1001", "9"), "line 2: '9': not an actor"),
        ("VideoDemographics.csv", DEMOGRAPHICS + "1001,20,Male,x,y\n", "line 3: '1001': a second row for this actor"),
        ("VideoDemographics.csv", DEMOGRAPHICS.replace("Cauc", "é").encode("latin-1"), "not a word for Race"),
        ("VideoDemographics.csv", DEMOGRAPHICS.encode("utf-16"), "column missing"),
        ("VideoDemographics.csv", f"{DEMOGRAPHICS}1002,{'x' * 200_000}\n", "field larger than field limit"),
        ("VideoDemographics.csv", DEMOGRAPHICS + "\0\0\n", "not an actor"),
        ("summaryTable.csv", VOTES.replace("FaceVote", "Face"), "line 1: 'FaceVote': column missing"),
        ("summaryTable.csv", VOTES + "1,1001_DFA_SAD_XX,X,60,A,60,A,60\n", "line 2: 'X': VoiceVote is none of"),
        ("summaryTable.csv", VOTES + "1,1001_DFA_SAD_XX,A:A,6:6,A,60,A,60\n", "line 2: 'A:A': VoiceVote is none of"),
        ("summaryTable.csv", VOTES + "1,1001_DFA_SAD_XX,A,60,A:D,60,A,60\n", "FaceLevel is not a number from 0 to 100"),
        ("summaryTable.csv", VOTES + "1,1001_DFA_SAD_XX,A,inf,A,60,A,60\n", "'inf': VoiceLevel is not a number"),
        ("summaryTable.csv", VOTES + "1,1001_DFA_SAD_XX,A,100.1,A,60,A,60\n", "'100.1': VoiceLevel is not a number"),
        ("summaryTable.csv", VOTES + "1,1001_DFA_SAD_XX,A,6\n", "line 2: '': FaceVote is none of"),
        (
            "summaryTable.csv",
            VOTES + "1,what,A,60,A,60,A,60\n" * 9,
            "line 2: 'what': not the name of a recording (and 8",
        ),
        ("SentenceFilenames.csv", "a,Filename\n1,../1001_DFA_SAD_XX\n", "line 2: '../1001_DFA_SAD_XX': not the name"),
    ],
)
def test_faults_of_the_metadata_are_notes(tmp_path: Path, name: str, text: str | bytes, told: str) -> None:
    root = touch(tmp_path, "VideoFlash/1001_DFA_SAD_XX.flv")
    write(root, name, text)
    index = crema_d.index(root)
    notes = [note for note in index.notes if name in note]
    assert [note for note in notes if told in note], notes
    assert all("\n" not in note and len(note) < 300 for note in notes)
    assert len(index.sources) == 1
    assert told in "".join(f.detail for f in findings(root, "metadata"))


def test_what_is_wrong_with_one_column_leaves_the_others(tmp_path: Path) -> None:
    root = touch(tmp_path, "VideoFlash/1001_DFA_SAD_XX.flv")
    write(root, "VideoDemographics.csv", DEMOGRAPHICS.replace("51", "-3"))
    write(root, "summaryTable.csv", VOTES + "1,1001_DFA_SAD_XX,A,1000,D,60,?,60\n")
    (source,) = crema_d.index(root).sources
    assert set(source.extra) == {"sex", "race", "ethnicity", "voice_vote", "face_vote", "face_level"}


@settings(max_examples=40)
@given(st.binary(max_size=300), st.sampled_from(sorted(crema_d.METADATA)), st.booleans())
def test_any_bytes_as_metadata(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str, header: bool
) -> None:
    root = touch(tmp_path_factory.mktemp("bytes"), "VideoFlash/1001_DFA_SAD_XX.flv")
    heads = {"VideoDemographics.csv": DEMOGRAPHICS, "summaryTable.csv": VOTES, "SentenceFilenames.csv": "a,Filename\n"}
    write(root, name, (heads.get(name, "path\tsha256\tbytes\n").encode() if header else b"") + content)
    index = crema_d.index(root)
    assert len(index.sources) == 1
    told = [*index.notes, *(f.detail for f in crema_d.examine(root, index, digests=True))]
    assert not [line for line in told if "\n" in line]


def test_folders_with_control_characters_stay_on_one_line(tmp_path: Path) -> None:
    name = "Video\nFlash/1076_MTI_NEU_XX.flv"
    write(tmp_path, "media_sha256.tsv", digest_list((name, b"longer")))
    root = touch(tmp_path, name)
    told = list(crema_d.examine(root, crema_d.index(root), digests=True))
    assert not [f for f in told if "\n" in f.item + f.detail]
    assert {"published_defect"} <= {f.check for f in told if f.item == "Video\\nFlash/1076_MTI_NEU_XX.flv"}


def test_missing_recordings_actors_and_votes(tmp_path: Path) -> None:
    root = touch(tmp_path, "VideoFlash/1001_DFA_SAD_XX.flv", "VideoFlash/1002_DFA_SAD_XX.flv")
    touch(tmp_path, "VideoFlash/1002_DFA_ANG_XX.flv")
    write(root, "VideoDemographics.csv", DEMOGRAPHICS)
    write(root, "summaryTable.csv", VOTES + "1,1001_DFA_SAD_XX,A,60,A,60,A,60\n")
    write(
        root, "SentenceFilenames.csv", "Filename\n1001_DFA_SAD_XX\n1001_TSI_SAD_XX\n1002_DFA_SAD_XX\n1003_DFA_SAD_XX\n"
    )
    index = crema_d.index(root)
    assert index.notes == [f"1002: {crema_d.UNKNOWN}", "1001: sad: 1001_TSI_SAD_XX", "1003: every recording"]
    assert "sex" in index.sources[0].extra
    assert "sex" not in index.sources[1].extra
    assert [(f.item, f.detail) for f in findings(root, "missing")] == [
        ("actors", "1 have no recording: 1003"),
        ("1001", "1 of 2: 1001_TSI_SAD_XX"),
    ]
    (unpublished,) = findings(root, "unpublished")
    assert unpublished.detail.endswith("1002_DFA_ANG_XX")
    assert [f.item for f in findings(root, "demographics")] == ["1002"]
    assert [f.item for f in findings(root, "votes")] == ["voice_vote", "face_vote", "multimodal_vote"]
    counts = {f.item: f.detail for f in findings(root, "count")}
    assert counts["sad"] == "2 recordings, 1271 published"
    assert counts["neutral"] == "0 recordings, 1087 published"


def test_media_that_differ_from_the_published(tmp_path: Path) -> None:
    """Two videos swapped, one cut off, one sound damaged; a converted one is not compared."""
    stems = ["1001_DFA_SAD_XX", "1001_DFA_ANG_XX", "1001_DFA_HAP_XX", "1001_DFA_NEU_XX"]
    bytes_of = {f"VideoFlash/{s}.flv": s.encode() for s in stems} | {
        f"AudioWAV/{s}.wav": s[::-1].encode() for s in stems
    }
    for name, content in bytes_of.items():
        write(tmp_path, name, content)
    touch(tmp_path, "mp4/1001_TSI_SAD_XX.mp4")
    write(tmp_path, "media_sha256.tsv", digest_list(*bytes_of.items()))
    assert not findings(tmp_path, "size")
    assert not findings(tmp_path, "digest", digests=True)
    assert not findings(tmp_path, "conflicting_labels", digests=True)

    sad, angry, happy, _ = (tmp_path / f"VideoFlash/{s}.flv" for s in stems)
    sad.write_bytes(stems[1].encode())
    angry.write_bytes(stems[0].encode())
    happy.write_bytes(b"1001")
    (tmp_path / f"AudioWAV/{stems[3]}.wav").write_bytes(b"damaged, equal size"[: len(stems[3])])
    assert not findings(tmp_path, "conflicting_labels")  # sizes tell nothing of it
    swapped = findings(tmp_path, "conflicting_labels", digests=True)
    assert [(f.severity, f.item) for f in swapped] == [
        ("fatal", "VideoFlash/1001_DFA_ANG_XX.flv"),
        ("fatal", "VideoFlash/1001_DFA_SAD_XX.flv"),
    ]
    assert "published as VideoFlash/1001_DFA_SAD_XX.flv" in swapped[0].detail
    (cut,) = findings(tmp_path, "size")
    assert (cut.item, cut.detail.split(":")[0]) == ("VideoFlash/1001_DFA_HAP_XX.flv", "4 bytes, 15 published")
    assert {f.item for f in findings(tmp_path, "digest", digests=True)} == {
        "VideoFlash/1001_DFA_HAP_XX.flv",
        "AudioWAV/1001_DFA_NEU_XX.wav",
    }


def test_digests_without_a_list(tmp_path: Path) -> None:
    root = touch(tmp_path, "VideoFlash/1001_DFA_SAD_XX.flv")
    assert not findings(root, "digest")
    (told,) = findings(root, "digest", digests=True)
    assert "nothing to compare" in told.detail


def test_conflicts_of_files_that_are_not_in_the_tree_are_not_told(tmp_path: Path) -> None:
    same = b"the same"
    names = [f"AudioWAV/1001_DFA_{e}_XX.wav" for e in ("SAD", "ANG")]
    touch(tmp_path, "VideoFlash/1001_TSI_SAD_XX.flv")
    write(tmp_path, "media_sha256.tsv", digest_list(*((name, same) for name in names)))
    assert not findings(tmp_path, "conflicting_labels")
    touch(tmp_path, "VideoFlash/1001_DFA_SAD_XX.flv")
    (conflict,) = findings(tmp_path, "conflicting_labels")
    assert "does not use it" in conflict.detail  # no WAV beside
    write(tmp_path, names[0], same)
    (conflict,) = findings(tmp_path, "conflicting_labels")
    assert conflict.detail.endswith("in doubt are then 1001_DFA_SAD_XX")


@pytest.mark.parametrize(
    ("content", "told"),
    [((), "no other files"), (("AudioWAV/1001_DFA_SAD_XX.wav",), "VideoFlash was not"), (("a.txt",), "such as a.txt")],
)
def test_a_wrong_root_is_one_line(tmp_path: Path, content: tuple[str, ...], told: str) -> None:
    with pytest.raises(DatasetError, match=told) as caught:
        crema_d.index(touch(tmp_path, *content))
    assert "no CREMA-D video" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(DatasetError, match="not a folder"):
        crema_d.index(tmp_path / "missing")
