"""Other people's methods: where their checkouts lie, what they are given, and what is made of the video they write."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from itertools import chain, islice, repeat
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmark.errors import BenchError
from pipelines import crop, faces, media
from reference_models import external
from reference_models.base import CHUNK, FPS, GenerationError, Request
from reference_models.external import Call, Place, Ran
from reference_models.process_group import Guard

VERSION = 1  # raise when a method is given other inputs, or other frames are made of its output
HOLD = 6  # frames that may be missing at the end: the last one is held, and the record says how often
LONGER = 2.0  # s; an output that exceeds the sound by more is not of this clip
STRETCH = 1.05  # most by which the sides of output and portrait may differ in proportion
RATE = 0.01  # by which an output's frame rate may differ from the one that is stated
INPUTS = {
    "portrait": (".png", ".jpg"),
    "speech": (".wav",),
    "held video": (".mp4",),
    "emotion video": (".mp4",),
    "prepared": (),  # any
}
JPEG_QUALITY = 98


def validate(call: Call, where: str) -> None:
    """Raise BenchError for a [call] that cannot be meant, naming the file and the key."""
    for name, kind in call.stage.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or " " in name:
            raise BenchError(f"{where}: call.stage {name!r}; expected a path inside the checkout, without blanks")
        if kind not in INPUTS:
            raise BenchError(f"{where}: call.stage {name!r} = {kind!r}; it takes {', '.join(map(repr, INPUTS))}")
        if INPUTS[kind] and path.suffix not in INPUTS[kind]:
            raise BenchError(f"{where}: call.stage {name!r} is a {kind}; expected {' or '.join(INPUTS[kind])}")
    for key, value, form in (("crop", call.crop, "left, top, width, height"), ("size", call.size, "width, height")):
        if value and len(value) != len(form.split(", ")):
            raise BenchError(f"{where}: call.{key} = {list(value)}; expected {form}")
    if not call.command or call.timeout <= 0:
        raise BenchError(f"{where}: call.command is empty, or call.timeout = {call.timeout} is no time")
    if PurePosixPath(call.output).is_absolute() or ".." in PurePosixPath(call.output).parts:
        raise BenchError(f"{where}: call.output = {call.output!r}; expected a path or glob inside the checkout")
    if "{emotion}" in " ".join((*call.command, call.output)) and not call.emotions:
        raise BenchError(f"{where}: call.command has {{emotion}}, but there is no [call.emotions]")


def contents(call: dict[str, Any]) -> dict[str, Any]:
    """The parts of a call that can change a video, for its digest: not where it lies nor how long it may take."""
    left_out = ("repository", "commit", "requires", "programs", "notes", "repo", "python", "timeout")
    return {key: value for key, value in call.items() if key not in left_out}


def remember(name: str, place: Place, workspace: Path) -> Path:
    """Write down where the checkout of a method lies on this machine."""
    path = workspace / "checkouts" / f"{name}.json"
    text = json.dumps({"repo": str(place.repo), "python": place.python}, indent=1) + "\n"
    media.write_bytes(path, text.encode())
    return path


def find(name: str, call: Call, workspace: Path) -> Place | None:
    """Where the checkout lies: as the method's file says, else as remembered; None where nobody has said."""
    if call.repo:
        return Place(Path(call.repo), call.python or "python3")
    try:
        stored = json.loads((workspace / "checkouts" / f"{name}.json").read_text(encoding="utf-8"))
        return Place(Path(stored["repo"]), str(stored["python"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def place(name: str, call: Call, workspace: Path) -> Place:
    """find(), checked as far as it can be without running it. Raises BenchError that says what to do."""
    found = find(name, call, workspace)
    if found is None:
        what = f"a checkout of {call.repository}" if call.repository else "its folder (call.repo in its file)"
        raise BenchError(f"{name} needs {what}; `bench methods check {name}` says the steps")
    if problems := missing(call, found):
        more = f" (and {len(problems) - 1} more: `bench methods check {name}`)" if len(problems) > 1 else ""
        raise BenchError(f"{name}: {problems[0]}{more}")
    return found


def missing(call: Call, at: Place) -> list[str]:
    """What a checkout lacks, one line each: folder, interpreter, entry script, weights, programs."""
    if not at.repo.is_dir():
        return [f"{at.repo}: no such folder"]
    path = external.environment(at.python, None)["PATH"]
    found = [] if shutil.which(at.python, path=path) else [f"{at.python}: no such interpreter"]
    for name in (*entries(call), call.config, *call.requires):
        if name and not (at.repo / name).exists():
            found.append(f"{name} is not in {at.repo}")
    found += [f"{name} is not on the PATH" for name in call.programs if not shutil.which(name, path=path)]
    return found


def entries(call: Call) -> list[str]:
    """The scripts of the checkout that the commands run, as paths in it. A module of a user's own method is not looked
    for: it may be installed in the method's environment."""
    scripts = []
    for command, inside in call.commands:
        if command[:2] == ("{python}", "-m"):
            scripts += [f"{command[2].replace('.', '/')}.py"] if call.repository else []
        elif command[0] == "{python}":
            script = next((part for part in command if part.endswith(".py")), None)  # options of Python may precede it
            scripts += [str(PurePosixPath(inside) / script)] if script else []
    return scripts


def interpreter(written: str, base: Path) -> str:
    """The interpreter that a user wrote: a path from `base`, or a name on the PATH. Its links are kept: that of an
    environment is a link, by whose place it knows its environment."""
    return str(base.absolute() / Path(written).expanduser()) if os.sep in written else written


def prepared(name: str, workspace: Path) -> Path:
    """The folder of what the user has made for a method with the method's own tools."""
    return workspace / "inputs" / name


def prepared_files(call: Call, inputs: Path, pair_id: str) -> dict[str, Path]:
    """What of it a pair is given, whether it is there or not: place in the working copy to file."""
    wanted = {name: PurePosixPath(name) for name, kind in call.stage.items() if kind == "prepared"}
    return {name: inputs / path.stem / f"{pair_id}{path.suffix}" for name, path in wanted.items()}


def steps(name: str, call: Call, workspace: Path) -> list[str]:
    """What somebody who has nothing yet has to do before `bench methods check`, one step a line."""
    todo = []
    if call.repository:
        todo.append(f"git clone https://github.com/{call.repository}; cd {call.repository.partition('/')[2]}")
        todo.append(f"git checkout {call.commit[:12]}   (the commit at which the arguments were read; others may do)")
        todo.append("make its environment as its README says (conda or a venv of its own; nothing of ours is needed)")
    if call.requires:
        todo.append(f"put its weights, as its README says, where it looks for them: {', '.join(call.requires)}")
    if call.programs:
        todo.append(f"install {', '.join(call.programs)}")
    for path, kind in call.stage.items():
        if kind == "prepared":
            stem, suffix = PurePosixPath(path).stem, PurePosixPath(path).suffix
            todo.append(f"make {prepared(name, workspace) / stem}/<pair_id>{suffix} for every pair, with its own tools")
    return [*todo, *call.notes]


class Checkout:
    """A generator (reference_models.base) that runs a checkout and brings what it writes to the benchmark's form.

    log, record   of the last request: what was printed, and {"exit_code", "ram_mib", "gpu_mib", "held"}
    """

    def __init__(self, name: str, call: Call, at: Place, inputs: Path, device: str) -> None:
        self._name, self._call, self._at, self._inputs = name, call, at, inputs
        self._gpu = _visible(device)
        self.log = ""
        self.record: dict[str, Any] = {}

    def generate(self, request: Request) -> Iterator[NDArray[np.uint8]]:
        """Frames at FPS in the portrait's framing and size. Raises GenerationError."""
        self.log, self.record = "", {}
        words = {"emotion": external.word(self._call, request.emotion), "seed": str(request.seed % (2**31 - 1) + 1)}
        copy = Path(tempfile.mkdtemp(prefix="bench-"))  # TMPDIR says where; its name has no blanks
        with Guard(copy) as guard:
            external.working_copy(self._at.repo, copy, self._call.fresh)
            for name, kind in self._call.stage.items():
                self._stage(copy, name, kind, request)
            ran = external.run(self._call, self._at, copy, words, self._gpu, guard)
            self._note(ran)
            if ran.output is None:
                raise GenerationError(str(ran.error))
            yield from self._frames(ran.output, request)

    def _note(self, ran: Ran) -> None:
        self.log = ran.log
        self.record = {"exit_code": ran.exit_code, "ram_mib": ran.ram_mib, "gpu_mib": ran.gpu_mib, "held": 0}

    def _stage(self, copy: Path, name: str, kind: str, request: Request) -> None:
        path = external.ours(copy, name)
        if kind == "portrait":
            quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix == ".jpg" else []
            side = self._call.side
            image = _resized(request.reference, (side, side)) if side else request.reference
            done, data = cv2.imencode(path.suffix, image[..., ::-1], quality)
            if not done:
                raise GenerationError(f"the portrait {image.shape} cannot be written as {path.suffix}")
            path.write_bytes(data.tobytes())
        elif kind == "speech":
            media.write_wav(path, request.audio, request.sample_rate)
        elif kind == "held video":
            held = repeat(request.reference, request.num_frames)
            media.write_video(path, held, FPS, audio=request.audio, sample_rate=request.sample_rate)
        elif kind == "emotion video":
            video = request.emotion_video
            if video is None:
                raise GenerationError(f"needs an emotion video, and there is none of this person's {request.emotion}")
            next(video.frames())  # raises where the file is not the one that was prepared
            if video.video.suffix == path.suffix:
                shutil.copyfile(video.video, path)
            else:
                media.write_video(path, video.frames(), FPS)
        else:
            source = prepared_files(self._call, self._inputs, request.name)[name]
            if not source.is_file():
                where = Path("WORKSPACE", "inputs", self._name, path.stem, source.name)
                raise GenerationError(f"{where} is missing; `bench methods check {self._name}` says what makes it")
            shutil.copyfile(source, path)

    def _frames(self, path: Path, request: Request) -> Iterator[NDArray[np.uint8]]:
        found, wanted = media.probe(path), request.num_frames
        if self._call.fps and abs(found.fps / self._call.fps - 1) > RATE:
            raise GenerationError(f"wrote {found.fps:g} frames a second; expected {self._call.fps:g}")
        if found.duration is not None and found.duration > wanted / FPS + LONGER:
            raise GenerationError(f"wrote {found.duration:.2f} s for a sound of {wanted / FPS:.2f} s")
        shown = self._shown(media.read_frames(path, FPS, num_frames=wanted), request)
        last, count = None, 0
        while chunk := list(islice(shown, CHUNK)):
            last, count = chunk[-1], count + len(chunk)
            yield np.stack(chunk)  # (t, H, W, 3)
        short = wanted - count
        if last is None or short > HOLD:
            raise GenerationError(f"wrote {count / FPS:.2f} s of video for a sound of {wanted / FPS:.2f} s")
        if short:
            self.record["held"] = short
            yield np.repeat(last[None], short, axis=0)

    def _shown(self, frames: Iterator[NDArray[np.uint8]], request: Request) -> Iterator[NDArray[np.uint8]]:
        """The part with the face, in the portrait's framing and size."""
        height, width = request.reference.shape[:2]
        cut = (_cut(frame, self._call) for frame in frames)
        first = next(cut, None)
        if first is None:
            return
        if self._call.framing == "face":
            matrix = _onto(first, request)
            for frame in chain([first], cut):
                yield crop.warp(frame, matrix, max(height, width))[:height, :width]
            return
        stretch = first.shape[1] * height / (first.shape[0] * width)
        if not 1 / STRETCH < stretch < STRETCH:
            size = f"{first.shape[1]}x{first.shape[0]}"
            raise GenerationError(f"wrote pictures of {size} for a portrait of {width}x{height}")
        for frame in chain([first], cut):
            yield _resized(frame, (width, height))


def _resized(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    if picture.shape[1::-1] == size:
        return picture
    way = cv2.INTER_AREA if picture.shape[1] > size[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, size, interpolation=way), np.uint8)


def _cut(frame: NDArray[np.uint8], call: Call) -> NDArray[np.uint8]:
    size = frame.shape[1::-1]
    if call.size and size != tuple(call.size):
        raise GenerationError(f"wrote pictures of {size[0]}x{size[1]}; expected {call.size[0]}x{call.size[1]}")
    if not call.crop:
        return frame
    left, top, width, height = call.crop
    if left + width > size[0] or top + height > size[1]:
        raise GenerationError(f"wrote pictures of {size[0]}x{size[1]}, too small for the part {list(call.crop)}")
    return frame[top : top + height, left : left + width]


def _onto(first: NDArray[np.uint8], request: Request) -> NDArray[np.float64]:
    """The similarity (2, 3) that moves the face of the method's first frame onto the portrait's."""
    if request.points is None:
        raise GenerationError("crops faces as it likes, and the portrait has no landmarks to move them back onto")
    mesh = faces.FaceMesh()
    try:
        found = mesh(np.ascontiguousarray(first))
    finally:
        mesh.close()
    if not found:
        raise GenerationError("wrote a first frame without a face, which should be moved back onto the portrait's")
    return crop.similarity(found[0][:, :2], request.points()[:, :2])


def _visible(device: str) -> str | None:
    """CUDA_VISIBLE_DEVICES of a method on `device`; None: as it is, a worker's own GPU (benchmark.generate)."""
    if device == "cpu":
        return ""
    _, _, number = device.partition(":")
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not number:
        return None
    return shown.split(",")[int(number)] if shown else number
