"""Small raw trees of every dataset, in the published grammar: people who talk, annotation files, planted defects.

The people come from the folder of real clips where it is on the machine, else from the demo dataset, which renders
them. A recording is a short window of somebody's video under the name that the tree gives it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import av
import cv2
import numpy as np

from benchmark import engine
from pipelines import faces, media
from pipelines.datasets import demo

SIDE = 256  # px of the people's square pictures
RATE = 48_000
FRAMES = 27  # of a recording, at 25 a second; AV correlation needs 25, and a frame or two is lost on the way
NTSC = Fraction(30_000, 1001)
REAL = (  # file, how much its pictures are shrunk
    ("mead/M030/video/front/angry/level_3/016.mp4", 4),
    ("lrs3/QoT0S2vu9m4_00002.mp4", 1),
    ("hdtf/clips/WDA_KatieHill_000.mp4", 2),
    ("grid/bbaf2n.mpg", 1),
)
SPEECH = ("speech/happy.wav", "speech/sad.wav")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%064x\nsize 330000\n"


@dataclass(frozen=True, eq=False)
class Person:
    """frames (T, SIDE, SIDE, 3) uint8 at 25 a second; sound (n,) at RATE."""

    frames: np.ndarray
    sound: np.ndarray

    @cached_property
    def face(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of what the face covers over all frames, with a margin."""
        found = faces.boxes(faces.track(lambda: iter(self.frames[::10]), 2.5).points)
        low, high = found[:, :2].min(0), found[:, 2:].max(0)
        margin = 0.1 * (high - low)
        left, top, right, bottom = np.rint(np.clip([low - margin, high + margin], 0, SIDE)).astype(int).ravel()
        return left, top, right, bottom


@dataclass(frozen=True, slots=True)
class Take:
    """frames (T, SIDE, SIDE, 3) uint8 at `fps`, and the sound that goes with them."""

    frames: np.ndarray
    sound: np.ndarray
    fps: Fraction


@dataclass(frozen=True, slots=True)
class Planted:
    """A defect of a tree: `doctor` is (severity, check, item) of its finding, `prepare` (reason, source) of its row;
    None where it cannot show."""

    what: str
    doctor: tuple[str, str, str] | None
    prepare: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class Footage:
    """People to film, and speech for portraits."""

    origin: str
    people: Sequence[Person]
    speech: Sequence[np.ndarray]

    def take(self, who: int, k: int, fps: Fraction | int = 25, frames: int = FRAMES) -> Take:
        """The k-th window of a person; no two are alike."""
        person = self.people[who % len(self.people)]
        starts = len(person.frames) - frames
        first, mirrored = 5 * k % starts, k * 5 // starts % 2
        shown = first + (np.arange(int(frames * fps / 25)) * 25 / float(fps)).astype(int)
        pictures = person.frames[shown, :, ::-1] if mirrored else person.frames[shown]
        begin = first * RATE // 25
        return Take(pictures, person.sound[begin : begin + frames * RATE // 25], Fraction(fps))


def footage(shared: Path, scratch: Path) -> Footage:
    """Real people where the folder of real clips is there, else two of the demo's, rendered below `scratch`."""
    if all((shared / name).exists() for name in (*(name for name, _ in REAL), *SPEECH)):
        people = [_person(shared / name, shrink) for name, shrink in REAL]
        return Footage("../shared/data", people, [media.read_audio(shared / name, RATE) for name in SPEECH])
    jobs = [demo.Job(scratch, "W107", "neutral", 1, 1), demo.Job(scratch, "W108", "happy", 3, 1)]
    done = {outcome.item.identity: outcome for outcome in engine.run(demo.render_clip, jobs, workers=2)}
    assert all(outcome.error is None for outcome in done.values())
    people = [_person(job.path, 1) for job in jobs]
    return Footage("the demo dataset", people, [person.sound for person in people])


def _person(path: Path, shrink: int) -> Person:
    frames = []
    for frame in media.read_frames(path, shrink=shrink, num_frames=60):
        side = min(frame.shape[:2])
        top, left = ((length - side) // 2 for length in frame.shape[:2])
        square = frame[top : top + side, left : left + side]
        frames.append(cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
    return Person(np.stack(frames), media.read_audio(path, RATE)[: len(frames) * RATE // 25])


# Films: a face within a larger picture, whose colour tells the number of the frame.

LEVELS = 6  # of each colour, 40 apart: survives 4:2:0 and two encodings


def colour(number: int) -> tuple[int, int, int]:
    return tuple(30 + 40 * (number // LEVELS**k % LEVELS) for k in range(3))  # type: ignore[return-value]


def number(frame: np.ndarray) -> int:
    """Of the film's frame that a prepared clip shows, from its upper left corner, where the film is around the face."""
    levels = np.clip(np.rint((frame[2:12, 2:12].mean((0, 1)) - 30) / 40), 0, LEVELS - 1)
    return int(sum(int(level) * LEVELS**k for k, level in enumerate(levels)))


def film(person: Person, count: int, size: tuple[int, int], box: tuple[int, int, int, int]) -> Iterator[np.ndarray]:
    """`count` frames of (width, height) with the person's face, cut close, in the middle of `box` (left, top, width,
    height) and half as large; around it the colour of the frame's number."""
    left, top, right, bottom = person.face
    scale = min(box[2], box[3]) / 2 / max(right - left, bottom - top)
    width, height = round((right - left) * scale), round((bottom - top) * scale)
    x, y = box[0] + (box[2] - width) // 2, box[1] + (box[3] - height) // 2
    there_and_back = [*range(len(person.frames)), *range(len(person.frames) - 2, 0, -1)]
    for k in range(count):
        picture = np.full((size[1], size[0], 3), colour(k), np.uint8)
        face = person.frames[there_and_back[k % len(there_and_back)]][top:bottom, left:right]
        picture[y : y + height, x : x + width] = cv2.resize(face, (width, height), interpolation=cv2.INTER_AREA)
        yield picture


def write_film(
    path: Path, person: Person, seconds: int, fps: int, size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    sound = np.resize(person.sound, seconds * RATE)
    media.write_video(path, film(person, seconds * fps, size, box), fps, audio=sound, sample_rate=RATE)


# Files.


def write(path: Path, take: Take, *, sound: bool = True) -> None:
    media.write_video(path, take.frames, take.fps, audio=take.sound if sound else None, sample_rate=RATE)


def write_sound(path: Path, sound: np.ndarray, codec: str = "aac") -> None:
    _mux(path, None, codec, Take(np.empty(0), sound, Fraction(25)))


def write_flv(path: Path, take: Take) -> None:
    """Sorenson H.263 and MP3, as CREMA-D's."""
    _mux(path, "flv", "libmp3lame", take)


def _mux(path: Path, video: str | None, audio: str, take: Take) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        pictures = container.add_stream(video, rate=take.fps) if video else None
        track = container.add_stream(audio, rate=44_100, layout="mono")
        if pictures is not None:
            pictures.height, pictures.width = take.frames.shape[1:3]
            pictures.pix_fmt, pictures.bit_rate = "yuv420p", 1_500_000
            for rgb in take.frames:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
                container.mux(pictures.encode(frame.reformat(format="yuv420p")))
            container.mux(pictures.encode(None))
        block = av.AudioFrame.from_ndarray(np.ascontiguousarray(take.sound)[None], format="fltp", layout="mono")
        block.sample_rate, block.pts, block.time_base = RATE, 0, Fraction(1, RATE)
        resampler = av.AudioResampler(track.codec_context.format, "mono", 44_100, track.codec_context.frame_size)
        for converted in (*resampler.resample(block), *resampler.resample(None)):
            container.mux(track.encode(converted))
        container.mux(track.encode(None))


def write_pointer(path: Path) -> None:
    """What Git LFS leaves in the place of a file, in a download as a zip."""
    media.write_bytes(path, POINTER % len(path.name))


def write_wall(path: Path, take: Take) -> None:
    """A recording that shows nobody."""
    write(path, Take(np.full_like(take.frames, 120), take.sound, take.fps))


def write_lines(path: Path, lines: Iterable[str], *, bom: bool = False, end: str = "\n") -> None:
    media.write_bytes(path, b"\xef\xbb\xbf" * bom + "".join(line + end for line in lines).encode())


# Trees. Each writes below `root` and returns what it planted.


def mead(root: Path, filmed: Footage) -> list[Planted]:
    """Two people: DICE-Talk's and EAT's presets test M030, and EAT-Face's draws."""

    def at(who: str, emotion: str, level: int, take: int) -> str:
        return f"{who}/video/front/{emotion}/level_{level}/{take:03}.mp4"

    for k, (emotion, level, take) in enumerate((("neutral", 1, 1), ("happy", 2, 1), ("happy", 2, 14))):
        write(root / at("M030", emotion, level, take), filmed.take(0, k))
    sad = filmed.take(0, 6, 30)
    write(root / at("M030", "sad", 3, 1), sad, sound=False)
    write_sound(root / "M030/audio/sad/level_3/001.m4a", sad.sound)
    write(root / at("W023", "neutral", 1, 1), filmed.take(1, 0))
    write(root / at("W023", "happy", 2, 1), filmed.take(1, 1))
    stub, same, wall = at("M030", "fear", 2, 1), at("W023", "surprised", 2, 1), at("W023", "sad", 2, 1)
    loud = at("W023", "neutral", 2, 1)
    write_pointer(root / stub)
    (root / same).parent.mkdir(parents=True)
    shutil.copyfile(root / at("W023", "happy", 2, 1), root / same)
    write_wall(root / wall, filmed.take(1, 2))
    write_pointer(root / loud)
    return [
        Planted("a Git LFS pointer", ("fatal", "lfs_pointer", stub), ("lfs_pointer", stub)),
        Planted("a happy file under the name of a surprised one", ("fatal", "conflicting_labels", same), None),
        Planted("a recording of nobody", None, ("no_face", wall)),
        Planted("neutral at a level that it has not", ("fatal", "neutral_level", loud), ("neutral_level", loud)),
    ]


def crema_d(root: Path, filmed: Footage) -> list[Planted]:
    """Two actors: an FLV of Sorenson H.263 and MP3, conversions to MP4, and videos whose sound is the WAV."""
    write_flv(root / "VideoFlash/1001_IEO_NEU_XX.flv", filmed.take(2, 0, NTSC))
    write(root / "VideoFlash/1001_IEO_HAP_LO.mp4", filmed.take(2, 1, NTSC))
    write(root / "VideoFlash/1002_IEO_NEU_XX.mp4", filmed.take(3, 0, NTSC))
    for k, (who, stem) in enumerate(
        ((2, "1001_DFA_ANG_XX"), (2, "1001_DFA_SAD_XX"), (3, "1002_IEO_HAP_MD"), (3, "1002_DFA_ANG_XX")), 2
    ):
        spoken = filmed.take(who, k, NTSC)
        write(root / f"VideoFlash/{stem}.mp4", spoken, sound=False)
        media.write_wav(root / f"AudioWAV/{stem}.wav", spoken.sound[::3])
    same = "AudioWAV/1002_DFA_ANG_XX.wav"
    shutil.copyfile(root / "AudioWAV/1002_IEO_HAP_MD.wav", root / same)
    stub, mute = "VideoFlash/1001_TIE_SAD_XX.flv", "VideoFlash/1002_WSI_SAD_XX.mp4"
    write_pointer(root / stub)
    quiet = filmed.take(3, 7)
    write(root / mute, Take(quiet.frames, np.zeros_like(quiet.sound), quiet.fps))
    stems = sorted(path.stem for path in (root / "VideoFlash").iterdir())
    # 1002 is missing: the fourth defect.
    write_lines(root / "VideoDemographics.csv", ['"ActorID","Age","Sex","Race","Ethnicity"', PERSON], end="\r\n")
    write_lines(
        root / "SentenceFilenames.csv",
        ['"Stimulus_Number","Filename"', *(f'{k},"{stem}"' for k, stem in enumerate(stems, 1))],
    )
    votes = [f'"{k}","{stem}","N","69.1","H:N","57:52.5","H","62.29"' for k, stem in enumerate(stems, 1)]
    write_lines(root / "processedResults/summaryTable.csv", [VOTES, *votes])
    return [
        Planted("a Git LFS pointer", ("fatal", "lfs_pointer", stub), ("lfs_pointer", stub)),
        Planted("one WAV under two labels", ("fatal", "conflicting_labels", same), None),
        Planted("digital silence", None, ("silent_audio", mute)),
        Planted("an actor without demographics", ("warning", "demographics", "1002"), None),
    ]


PERSON = '1001,51,"Male","Caucasian","Not Hispanic"'
VOTES = '"","FileName","VoiceVote","VoiceLevel","FaceVote","FaceLevel","MultiModalVote","MultiModalLevel"'

# What HDTF's lists say of the films below: name, url, times, resolution, crops.
HDTF_SIZE, HDTF_BOX = (640, 360), (200, 20, 320, 320)
HDTF_LINES = f"{HDTF_BOX[0]} {HDTF_BOX[2]} {HDTF_BOX[1]} {HDTF_BOX[3]}"
HDTF_LISTS = {
    "RD": {
        "video_url": ["Radio11 https://www.youtube.com/watch?v=Radio11____"],
        "annotion_time": ["Radio11.mp4 00:30-01:00"],
        "crop_wh": ["Radio11_0.mp4 412 599 0 599"],
        "crop_ratio": ["Radio11_0.mp4 1.2"],
        "resolution": ["Radio11.mp4 720"],
    },
    "WDA": {
        "video_url": [
            "BobCasey1 https://www.youtube.com/watch?v=BobCasey1__",
            "AdamSmith https://youtu.be/AdamSmith__",
        ],
        "annotion_time": ["BobCasey1.mp4 00:45-00:55", "AdamSmith.mp4 00:00-00:01"],
        "crop_wh": ["BobCasey1_0.mp4 639 650 46 650", f"AdamSmith_0.mp4 {HDTF_LINES}"],
        "crop_ratio": ["BobCasey1_0.mp4 1.2", "AdamSmith_0.mp4 1.2"],
        "resolution": ["BobCasey1.mp4 1080", "AdamSmith.mp4 720"],
    },
    "WRA": {
        "video_url": [
            "TimScott https://www.youtube.com/watch?v=TimScott___",
            "JeffFlake0 https://www.youtube.com/watch?v=JeffFlake0_&t=6s",
        ],
        "annotion_time": [
            "TimScott.mp4 00:01-00:02 00:03-00:04 00:04-00:09 00:00-00:01",
            "JeffFlake0.mp4 00:01-00:02 00:00-00:01",
        ],
        "crop_wh": [
            *(f"TimScott_{k}.mp4 {HDTF_LINES}" for k in range(3)),
            f"JeffFlake0_0.mp4 {HDTF_LINES}",
            "JeffFlake0_1.mp4 400 320 20 320",
        ],
        "crop_ratio": ["TimScott_0.mp4 1.2", "TimScott_1.mp4 1.2", "JeffFlake0_0.mp4 1.0"],
        "resolution": ["TimScott.mp4 360", "JeffFlake0.mp4 360"],
    },
}


def hdtf(root: Path, filmed: Footage) -> list[Planted]:
    """Films of 25 and 30 frames a second to be cut, and ready clips under the names of the authors and of universome.
    The list of urls begins with a BOM, as the published one."""
    for subset, lists in HDTF_LISTS.items():
        for kind, lines in lists.items():
            write_lines(root / f"HDTF_dataset/{subset}_{kind}.txt", lines, bom=kind == "video_url" and subset == "WDA")
    write(root / "clips/BobCasey1_0.mp4", filmed.take(2, 8))
    write(root / "clips/RD_Radio11_000.mp4", filmed.take(3, 9))
    write_film(root / "videos/TimScott.mp4", filmed.people[0], 5, 25, HDTF_SIZE, HDTF_BOX)
    write_film(root / "videos/WRA_JeffFlake0.mp4", filmed.people[1], 3, 30, HDTF_SIZE, HDTF_BOX)
    write_film(root / "videos/AdamSmith.mp4", filmed.people[1], 1, 25, HDTF_SIZE, HDTF_BOX)
    return [
        Planted("times beyond the end", ("fatal", "cut", "WRA_TimScott_2"), ("times", "videos/TimScott.mp4")),
        Planted(
            "a video at another resolution than the crop's",
            ("fatal", "crop", "WDA_AdamSmith_0"),
            ("resolution", "videos/AdamSmith.mp4"),
        ),
        Planted(
            "a crop that leaves the picture",
            ("fatal", "crop", "WRA_JeffFlake0_1"),
            ("crop_outside", "videos/WRA_JeffFlake0.mp4"),
        ),
        Planted("no crop of a clip", ("note", "no_crop", "WRA_TimScott_3"), ("no_crop", "WRA_TimScott_3.mp4")),
    ]


VOX_FILM = "q1Zx-8_mKpE"
VOX_FRAMES = 30, 54  # first and last of the utterance that is cut


def voxceleb2(root: Path, filmed: Footage) -> list[Planted]:
    """Ready utterances in the published tree and under EAT's name, and a full video with the txt that cuts it."""
    first, second = "dev/mp4/id00017/01dfn2spqyE/00001.mp4", "id00017_5MkXgwdrmJw_00007.mp4"
    write(root / first, filmed.take(0, 10))
    write(root / second, filmed.take(0, 11))
    write(root / "dev/mp4/id00012/21Uxsk56VDQ/00001.mp4", filmed.take(1, 10))
    size, box = (480, 360), (140, 60, 240, 240)
    write_film(root / f"full/{VOX_FILM}.mp4", filmed.people[0], 3, 25, size, box)
    face = (box[0] + 60) / size[0], (box[1] + 60) / size[1], 120 / size[0], 120 / size[1]
    frames = range(VOX_FRAMES[0], VOX_FRAMES[1] + 1)
    write_utterance(root / f"dev/txt/id00017/{VOX_FILM}/00001.txt", "id00017", VOX_FILM, frames, face)
    write_utterance(root / first.replace("mp4", "txt"), "id00017", "01dfn2spqyE", range(FRAMES), face)
    stub, wall = "dev/mp4/id00017/01dfn2spqyE/00002.mp4", "dev/mp4/id00012/21Uxsk56VDQ/00002.mp4"
    other = f"dev/txt/id00012/{VOX_FILM}/00009.txt"
    write_pointer(root / stub)
    write_wall(root / wall, filmed.take(1, 2))
    write_utterance(root / other, "id00017", VOX_FILM, frames, face)
    meta = ["VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set ", "id00017 ,n000017 ,m ,dev "]  # id00012 is missing
    write_lines(root / "vox2_meta.csv", meta)
    return [
        Planted("a Git LFS pointer", ("fatal", "lfs_pointer", stub), ("lfs_pointer", stub)),
        Planted("a recording of nobody", None, ("no_face", wall)),
        Planted("the utterance of somebody else", ("warning", "utterance", other), ("utterance", other)),
        Planted("a person without metadata", ("warning", "meta", "id00012"), None),
    ]


def write_utterance(
    path: Path, identity: str, youtube: str, frames: Iterable[int], face: tuple[float, float, float, float]
) -> None:
    head = [f"Identity  : \t{identity}", f"Reference : \t{youtube}", "Offset    : \t-3", "FV Conf   : \t20.118\t(1)"]
    boxes = "".join(f"\t{value:.3f} " for value in face)
    columns = ["ASD Conf  : \t4.3", "", "FRAME \tX \tY \tW \tH "]
    write_lines(path, [*head, *columns, *(f"{k:06} {boxes}" for k in frames)])


def ravdess(root: Path, filmed: Footage) -> list[Planted]:
    """Two actors: videos with sound, one without and its sound beside it, and a calm one."""

    def at(emotion: str, who: str, *, modality: str = "01", level: str = "01", suffix: str = "mp4") -> str:
        folder = f"{'Audio' if modality == '03' else 'Video'}_Speech_Actor_{who}/Actor_{who}"
        return f"{folder}/{modality}-01-{emotion}-{level}-01-01-{who}.{suffix}"

    for k, emotion in enumerate(("01", "02", "05"), 12):  # neutral, calm, angry
        write(root / at(emotion, "01"), filmed.take(2, k, NTSC))
    happy = filmed.take(2, 15, NTSC)
    write(root / at("03", "01", modality="02"), happy, sound=False)
    media.write_wav(root / at("03", "01", modality="03", suffix="wav"), happy.sound, RATE)
    write(root / at("01", "02"), filmed.take(3, 12, NTSC))
    mute, strong, wall = at("04", "01", modality="02"), at("01", "01", level="02"), at("06", "02")
    cut_off = at("08", "02")
    write(root / mute, filmed.take(2, 16, NTSC), sound=False)
    write_pointer(root / strong)
    write_wall(root / wall, filmed.take(3, 13, NTSC))
    write(root / cut_off, filmed.take(3, 14, NTSC))
    media.write_bytes(root / cut_off, (root / cut_off).read_bytes()[:20_000])
    return [
        Planted("a video whose sound is not there", ("fatal", "no_audio", mute), ("no_audio", mute)),
        Planted("neutral at strong intensity", ("fatal", "neutral_level", strong), ("neutral_level", strong)),
        Planted("a recording of nobody", None, ("no_face", wall)),
        Planted("a file that is cut off", ("fatal", "truncated", cut_off), ("not_media", cut_off)),
    ]


def portraits(root: Path, filmed: Footage) -> list[Planted]:
    """Two portraits and two sounds; each bad file has a partner of its name, so that nobody else is drawn to it."""
    faces_, wall = [filmed.take(who, 17).frames[0] for who in (1, 2)], np.full((SIDE, SIDE, 3), 120, np.uint8)
    media.write_png(root / "images/anna ü.png", faces_[0])
    media.write_bytes(root / "images/ben.jpg", cv2.imencode(".jpg", faces_[1][..., ::-1])[1].tobytes())
    for name, sound in zip(("one", "two"), filmed.speech, strict=True):
        media.write_wav(root / f"speech/{name}.wav", sound[RATE // 2 : RATE // 2 + FRAMES * RATE // 25], RATE)
    media.write_png(root / "images/wall.png", wall)
    media.write_png(root / "images/both.png", np.concatenate(faces_[:1] * 2, axis=1))
    media.write_bytes(root / "images/torn.png", (root / "images/anna ü.png").read_bytes()[:4000])
    media.write_png(root / "images/stub.png", faces_[0][:, ::-1])
    for name, k in (("wall", 1), ("both", 2), ("torn", 3)):
        media.write_wav(root / f"speech/{name}.wav", filmed.take(0, k).sound, RATE)
    write_pointer(root / "speech/stub.wav")
    return [
        Planted("a picture of nobody", None, ("no_face", "images/wall.png")),
        Planted("a picture of two", None, ("several_faces", "images/both.png")),
        Planted("an image that is cut off", ("fatal", "truncated", "images/torn.png"), ("corrupt", "images/torn.png")),
        Planted(
            "a sound that is a Git LFS pointer",
            ("fatal", "lfs_pointer", "speech/stub.wav"),
            ("lfs_pointer", "images/stub.png"),
        ),
    ]


BUILD: dict[str, Callable[[Path, Footage], list[Planted]]] = {
    "mead": mead,
    "crema-d": crema_d,
    "hdtf": hdtf,
    "voxceleb2": voxceleb2,
    "ravdess": ravdess,
    "portraits": portraits,
}
