"""A stand-in for somebody's checkout, written at test time: the entry script of one of the fifteen methods with the
arguments, the places of its inputs, the names of its outputs and the pitfalls of the original, and no network in it.

It is written from the original entry scripts, not from our TOML files, so that a wrong argument or a wrong place of the
output fails. It proves the contract; whether an original runs is for `bench methods check` on a machine that has it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from pipelines import media


@dataclass(frozen=True)
class Original:
    """script: the entry script. takes: its arguments by their names in argparse, NAME[:int|float|flag].
    files: what else lies in the checkout. size and fps of its video."""

    script: str
    takes: str
    files: dict[str, str] = field(default_factory=dict)
    size: tuple[int, int] = (256, 256)
    fps: float = 25.0


YAML = """# settings
weight_dtype: 'fp16'
save_path: ./output_long/debug/
test_cases:
  './a.png':
    - './a.wav'
last:
  - 1
"""
ORIGINALS = {
    "sadtalker": Original(
        "inference.py", "--driven_audio --source_image --result_dir --preprocess --still:flag --size:int"
    ),
    "hallo": Original(
        "scripts/inference.py",
        "--config --source_image --driving_audio --output",
        {"configs/inference/default.yaml": YAML},
        (512, 512),
    ),
    "hallo2": Original(
        "scripts/inference_long.py",
        "--config --source_image --driving_audio",
        {"configs/inference/long.yaml": YAML},
        (512, 512),
    ),
    "echomimic": Original(
        "infer_audio2vid.py",
        "--config -W:int -H:int -L:int --fps:int --steps:int --cfg:float --seed:int",
        {"configs/prompts/animation.yaml": YAML},
        (512, 512),
        24.0,
    ),
    "sonic": Original("demo.py", "image audio output --dynamic_scale:float", {}, (512, 512)),
    "dice-talk-release": Original(
        "demo.py",
        "--image_path --audio_path --emotion_path --output_path --ref_scale:float --emo_scale:float --seed:int",
        {f"examples/emo/{word}.npy": word for word in ("angry", "happy", "neutral")},
        (512, 512),
    ),
    "aniportrait": Original(
        "scripts/audio2vid.py",
        "--config -W:int -H:int --seed:int",
        {"configs/prompts/animation_audio.yaml": YAML},
        (1544, 516),
        30.0,
    ),
    "v-express": Original(
        "inference.py",
        "--reference_image_path --audio_path --kps_path --output_path --retarget_strategy --num_inference_steps:int "
        "--seed:int",
        {},
        (512, 512),
        31.25,
    ),
    "eamm": Original("demo.py", "--source_image --driving_video --pose_file --in_file --emotion --result_path"),
    "styletalk": Original(
        "inference_for_demo.py",
        "--audio_path --style_clip_path --pose_path --src_img_path --wav_path --output_path",
        {"silent.mp4": "left by another run"},
        fps=30.0,
    ),
    "eat": Original(
        "demo.py",
        "--root_wav --emo",
        {
            "preprocess/preprocess_video.py": "",
            "preprocess/video/M003_neu_1_017.mp4": "their own",
            "demo/imgs/another.jpg": "their own",
            "demo/imgs_cropped/another.jpg": "their own",
            "demo/output/deepprompt_eam3d_all_final_313/portrait_hap_speech.mp4": "of an earlier run",
        },
    ),
    "makeittalk": Original("main_end2end.py", "--jpg", {"examples/M6_04_16k.wav": "their own"}, (768, 256), 62.5),
    "styleheat": Original(
        "inference.py",
        "--config --audio_path --image_source --cross_id:flag --if_extract:flag --if_align:flag --output_dir "
        "--inversion_option --frame_limit:int",
        {"configs/inference.yaml": "model:\n    mode: inference\n"},
        (1024, 1024),
    ),
    "ip-lap": Original("inference_single.py", "--input --audio --output_dir"),
    "emogen": Original("inference.py", "--checkpoint_path --face --audio --emotion", {"temp/result.avi": "their own"}),
}

SCRIPT = r'''
import argparse, glob, json, os, shutil, struct, subprocess, sys, time, wave
HOME = os.path.dirname(os.path.realpath(__file__))
while not os.path.exists(os.path.join(HOME, "standin.json")): HOME = os.path.dirname(HOME)
CARD = json.load(open(os.path.join(HOME, "standin.json")))
NAME, PITFALL = CARD["name"], CARD["pitfall"]
if os.path.basename(__file__) == "preprocess_video.py":
    for path in glob.glob("./video/*.mp4"):
        check_name = os.path.basename(path)[:-4]
        folder = "../demo/video_processed/" + check_name
        for part in ("deepfeature32", "poseimg", "latent_evp_25"): os.makedirs(folder + "/" + part)
        assert os.path.getsize(path) > 500
        open(folder + "/" + check_name + ".wav", "w").write("sound")
    sys.exit()
parser = argparse.ArgumentParser(allow_abbrev=False)
for name, _, kind in (word.partition(":") for word in CARD["original"]["takes"].split()):
    if kind == "flag": parser.add_argument(name, action="store_true")
    else: parser.add_argument(name, type={"int": int, "float": float}.get(kind, str))
given = vars(parser.parse_args())
print("given", json.dumps(given), flush=True)
print("environment", json.dumps({k: os.environ.get(k) for k in ("PYTHONPATH", "VIRTUAL_ENV", "CUDA_VISIBLE_DEVICES")}))

def image(path, side=None):
    head = open(path, "rb").read(24)
    if path.endswith(".jpg"): assert head[:2] == b"\xff\xd8", path + " is no JPEG"
    else:
        assert head[:8] == b"\x89PNG\r\n\x1a\n", path + " is no PNG"
        assert side is None or struct.unpack(">II", head[16:]) == (side, side)
    return os.path.splitext(os.path.basename(path))[0]
def sound(path):
    with wave.open(path) as file: assert file.getframerate() == 16000 and file.getnchannels() == 1
    return os.path.splitext(os.path.basename(path))[0]
def video(path): assert open(path, "rb").read(8)[4:] == b"ftyp", path + " is no MP4"
def setting(key):
    for line in open(given["config"]):
        if line.startswith(key + ":"): return json.loads(line.split(":", 1)[1])
    raise KeyError(key)

def write(path, silent=None):
    """The video at `path`, as this method and this pitfall would leave it, and a silent one beside."""
    canned = os.path.join(HOME, CARD["canned"])
    if PITFALL == "crash": raise RuntimeError("CUDA error: no kernel image is available")
    if PITFALL == "hang":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print("child", child.pid, flush=True)
        shutil.copyfile(canned, path)
        time.sleep(600)
    if PITFALL == "no file": return
    if silent: shutil.copyfile(canned, silent)
    if PITFALL == "half a file":
        data = open(canned, "rb").read()
        open(path, "wb").write(data[:len(data) // 2])
    else: shutil.copyfile(canned, path)
    if PITFALL == "two files": shutil.copyfile(canned, path.replace(".mp4", "_2.mp4"))

if NAME == "sadtalker":
    image(given["source_image"]), sound(given["driven_audio"])
    os.makedirs(given["result_dir"] + "/2026_11_21_10.00.00")
    os.rmdir(given["result_dir"] + "/2026_11_21_10.00.00")
    write(given["result_dir"] + "/2026_11_21_10.00.00.mp4")
elif NAME == "hallo":
    image(given["source_image"]), sound(given["driving_audio"])
    os.makedirs(setting("save_path"))
    write(given["output"])
elif NAME == "hallo2":
    folder = os.path.join(setting("save_path"), image(given["source_image"]))
    os.makedirs(folder + "/seg_video/" + sound(given["driving_audio"]))
    write(folder + "/merge_video.mp4", folder + "/seg_video/portrait-000001.mp4")
elif NAME in ("echomimic", "aniportrait"):
    (picture, speech), = setting("test_cases").items()
    if NAME == "aniportrait": assert setting("pose_temp"), "IndexError: list index out of range"
    folder = "output/20261121/1000--seed_%d-512x512/" % given["seed"]
    os.makedirs(folder)
    stem = folder + image(picture) + "_" + sound(speech[0]) + "_512x512_3_1000"
    if NAME == "echomimic": write(stem + "_withaudio.mp4", stem + ".mp4")
    else: write(stem + ".mp4")
elif NAME == "sonic":
    image(given["image"]), sound(given["audio"]), os.makedirs(os.path.dirname(given["output"]), exist_ok=True)
    write(given["output"])
elif NAME == "dice-talk-release":
    image(given["image_path"]), sound(given["audio_path"]), open(given["emotion_path"]).read()
    assert given["seed"] > 0
    write(given["output_path"])
elif NAME == "v-express":
    image(given["reference_image_path"]), sound(given["audio_path"])
    assert given["kps_path"] == "" and given["retarget_strategy"] == "fix_face"
    write(given["output_path"])
elif NAME == "eamm":
    image(given["source_image"]), sound(given["in_file"]), video(given["driving_video"])
    open(given["pose_file"]).read()
    shutil.copyfile(os.path.join(HOME, CARD["canned"]), given["result_path"] + "neutral.mp4")
    shutil.copyfile(os.path.join(HOME, CARD["canned"]), given["result_path"] + "emotion.mov")
    write(given["result_path"] + "emotion.mp4")
elif NAME == "styletalk":
    image(given["src_img_path"], 256), sound(given["wav_path"])
    for key in ("audio_path", "style_clip_path", "pose_path"): open(given[key]).read()
    assert not os.path.exists("silent.mp4")
    open("silent.mp4", "w").write("mine")
    write(given["output_path"])
    os.remove("silent.mp4")
elif NAME == "eat":
    name = os.path.basename(given["root_wav"])
    open(given["root_wav"] + "/" + name + ".wav").read()
    os.makedirs("demo/output/deepprompt_eam3d_all_final_313/temp")
    for path in glob.glob("./demo/imgs/*.jpg"): shutil.copyfile(path, path.replace("imgs/", "imgs_cropped/"))
    pictures = glob.glob("./demo/imgs_cropped/*.jpg")
    print("animates", sorted(map(os.path.basename, pictures)))
    for path in pictures:
        write("demo/output/deepprompt_eam3d_all_final_313/%s_%s_%s.mp4" % (image(path), given["emo"], name))
elif NAME == "makeittalk":
    image("examples/" + given["jpg"])
    speeches = sorted(glob.glob("examples/*.wav"))
    print("animates", speeches)
    for path in speeches:
        sound(path)
        open(path, "ab").write(b"rewritten")
        write("examples/%s_pred_fls_%s_audio_embed.mp4" % (given["jpg"].split(".")[0], os.path.basename(path)[:-4]))
elif NAME == "styleheat":
    name = image(given["image_source"])
    sound(given["audio_path"]), os.makedirs("docs/demo/output/temp")
    write(given["output_dir"] + "/" + name + "_audio.mp4", given["output_dir"] + "/" + name + ".mp4")
elif NAME == "ip-lap":
    video(given["input"]), sound(given["audio"])
    os.makedirs(given["output_dir"], exist_ok=True), os.makedirs("tempfile_of_" + given["output_dir"].split("/")[-1])
    write(given["output_dir"] + "/" + given["input"].split("/")[-1][:-4] + "result_N_25_Nl_15.mp4")
elif NAME == "emogen":
    video(given["face"]), sound(given["audio"])
    assert given["emotion"] in ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD"), given["emotion"]
    open("temp/result.avi", "w").write("mine")
    if os.path.isdir("results"): write("results/" + given["emotion"] + ".mp4")
print("done", flush=True)
'''


def pictures(size: tuple[int, int], frames: int, shown: tuple[int, int, int, int]) -> Iterator[np.ndarray]:
    """Frames that are black but for the part (left, top, width, height) with the face, which brightens over time."""
    left, top, width, height = shown
    for k in range(frames):
        frame = np.zeros((size[1], size[0], 3), np.uint8)
        frame[top : top + height, left : left + width] = 80 + 100 * k // frames
        yield frame


def checkout(
    repo: Path, name: str, requires: tuple[str, ...], seconds: float, pitfall: str = "", face: np.ndarray | None = None
) -> Path:
    """Write the stand-in for `name` into `repo`; what it generates lasts `seconds`: `face` moved into a frame of its
    own size, or a grey that brightens. pitfall: "no file", "hang", "half a file", "crash", "two files", "short" or
    "long". Returns repo."""
    original = ORIGINALS[name]
    parts = {"aniportrait": (1030, 2, 512, 512), "makeittalk": (256, 0, 256, 256)}
    shown = parts.get(name, (0, 0, *original.size))
    length = {"short": seconds / 2, "long": seconds + 4, "": seconds - (0.2 if name == "ip-lap" else 0)}
    frames = math.ceil(length.get(pitfall, seconds) * original.fps - 1e-6)
    for path, text in (original.files | dict.fromkeys(requires, "weights") | {original.script: SCRIPT}).items():
        file = repo / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.write_text(SCRIPT if file.suffix == ".py" else text)
    card = {"name": name, "pitfall": pitfall, "canned": "canned.mp4", "original": asdict(original)}
    (repo / "standin.json").write_text(json.dumps(card))
    made = pictures(original.size, frames, shown) if face is None else iter([face] * frames)
    media.write_video(repo / "canned.mp4", made, original.fps)
    return repo
