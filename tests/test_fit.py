"""The training loop: it learns, resumes to the same bytes after a kill, and says in one line what stops it."""

from __future__ import annotations

import json
import pickle
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from reference_models.fit import FitError, Fitted, Settings, fit

SETTINGS = Settings(steps=40, learning_rate=0.02, warmup=4, accumulate=2, clip_norm=1.0, ema=0.9, seed=3,
                    log_every=7, save_every=10, validate_every=20)  # fmt: skip


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.2), nn.ReLU(), nn.Linear(16, 1))


def batch(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points and the sum of their squares, from the number alone."""
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(number))
    return x, (x**2).sum(1, keepdim=True)


def loss(model: nn.Module, given: tuple, generator: torch.Generator) -> dict[str, torch.Tensor]:
    x, y = given
    noise = 0.01 * torch.randn(x.shape, generator=generator)
    return {"error": ((model(x + noise) - y) ** 2).mean(), "size": 1e-3 * model(x).abs().mean()}


def quality(model: nn.Module, step: int) -> float:
    assert not model.training
    x, y = batch(10**6)
    return -((model(x) - y) ** 2).mean().item()


def train(folder: Path, settings: Settings = SETTINGS, **options: object) -> Fitted:
    return fit(network(), loss, batch, settings, folder, **({"validate": quality, "about": "x"} | options))


def weights(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_the_loss_falls_and_everything_is_written(tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=200, learning_rate=0.03)
    done = train(tmp_path, settings)
    log = [line for line in lines(tmp_path) if "error" in line]
    assert log[-1]["error"] < 0.3 * log[0]["error"]
    assert [line["step"] for line in log] == [*range(7, 200, 7), 200]
    assert log[0]["lr"] == 0.03  # after 4 steps of warm-up
    values = {line["step"]: line["validation"] for line in lines(tmp_path) if "validation" in line}
    assert sorted(values) == list(range(20, 201, 20))
    assert done.best_value == max(values.values()) == values[done.best_step]
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000190", "step-00000200"]
    assert list(tmp_path.glob("events.out.tfevents.*"))
    # What is kept as the best is what was validated: the averaged weights, not those of the last step.
    best = network()
    best.load_state_dict(load_file(done.best))
    assert quality(best.eval(), 0) == pytest.approx(done.best_value, rel=1e-6)
    with safe_open(done.best, "pt") as file:
        assert json.loads(file.metadata()["best"]) == {"step": done.best_step, "value": done.best_value}
    assert done.last == tmp_path / "step-00000200" / "ema.safetensors"


def test_the_first_step_is_that_of_the_formula(tmp_path: Path) -> None:
    """AdamW's first step, with accumulated gradients and warm-up, against a plain reading of the formula."""
    model = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.5)

    def error(model: nn.Module, given: tuple, generator: torch.Generator) -> dict[str, torch.Tensor]:
        return {"error": ((model(given[0]) - given[1]) ** 2).mean()}

    settings = Settings(steps=1, learning_rate=0.1, weight_decay=0.01, warmup=4, accumulate=2)
    fit(model, error, batch, settings, tmp_path)
    gradients = []
    for number in (0, 1):
        x, y = (part.double() for part in batch(number))
        gradients.append(2 * ((x @ torch.full((4, 1), 0.5, dtype=torch.float64) - y) * x).mean(0))
    mean = sum(gradients) / 2
    rate = 0.1 / 4
    expected = 0.5 * (1 - rate * 0.01) - rate * mean / (mean.abs() + 1e-8)
    assert torch.allclose(model.weight[0].double(), expected, atol=1e-6)


def test_a_killed_run_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    train(tmp_path / "whole")
    script = (
        f"import sys, time, pathlib; sys.path[:0] = {sys.path!r}\n"
        "import test_fit as t\n"
        "fast = t.batch\n"
        "def slow(number):\n"
        "    time.sleep(0.02)\n"
        "    return fast(number)\n"
        "t.batch = slow\n"
        "t.train(pathlib.Path(sys.argv[1]))\n"
    )
    killed = tmp_path / "killed"
    with subprocess.Popen([sys.executable, "-c", script, str(killed)], stderr=subprocess.DEVNULL) as process:
        give_up = time.monotonic() + 120
        while not (killed / "step-00000020").exists() and process.poll() is None and time.monotonic() < give_up:
            time.sleep(0.01)
        time.sleep(0.15)  # some steps beyond the checkpoint
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert (killed / "step-00000020").exists()
    assert not (killed / "step-00000040").exists()
    (killed / ".step-00000030.partial").mkdir(exist_ok=True)  # as if it had been killed while saving
    train(killed)
    assert weights(killed) == weights(tmp_path / "whole")
    assert lines(killed) == lines(tmp_path / "whole")
    assert not list(killed.glob(".*"))


def test_more_steps_go_on_from_the_end(tmp_path: Path) -> None:
    train(tmp_path / "one", replace(SETTINGS, steps=20), validate=None)
    train(tmp_path / "one", validate=None)
    train(tmp_path / "two", validate=None)
    last = "step-00000040/weights.safetensors"
    assert weights(tmp_path / "one")[last] == weights(tmp_path / "two")[last]
    with pytest.raises(FitError, match="holds step 40 already, 20 were asked"):
        train(tmp_path / "one", replace(SETTINGS, steps=20))


def test_another_run_is_refused_and_fresh_replaces_it(tmp_path: Path) -> None:
    short = replace(SETTINGS, steps=10)
    train(tmp_path, short)
    with pytest.raises(FitError, match=r"learning_rate was 0.02, now 0.5"):
        train(tmp_path, replace(short, learning_rate=0.5))
    with pytest.raises(FitError, match=r"about was 'x', now 'other data'"):
        train(tmp_path, short, about="other data")
    before = weights(tmp_path)
    train(tmp_path, replace(short, seed=4), resume=False)
    assert len(before) == len(weights(tmp_path)) == 3
    assert all(before[name] != now for name, now in weights(tmp_path).items())


class Hostile:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("hacked"),)


@pytest.mark.parametrize("content", [b"", b"\x80garbage", pickle.dumps(Hostile())])
def test_a_damaged_or_hostile_checkpoint_is_refused(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    short = replace(SETTINGS, steps=10)
    train(tmp_path / "run", short)
    (tmp_path / "run/step-00000010/state.pt").write_bytes(content)
    with pytest.raises(FitError, match=r"step-00000010: damaged, or of another model") as caught:
        train(tmp_path / "run", short)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "hacked").exists()


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    short = replace(SETTINGS, steps=10, ema=0.0)
    train(tmp_path, short)
    with pytest.raises(FitError, match="of another model"):
        fit(nn.Sequential(nn.Linear(4, 1)), loss, batch, short, tmp_path, about="x")


def test_a_loss_that_is_not_finite_names_the_step(tmp_path: Path) -> None:
    def breaks(model: nn.Module, given: tuple, generator: torch.Generator) -> dict[str, torch.Tensor]:
        terms = loss(model, given[:2], generator)
        return terms | {"error": terms["error"] * (float("nan") if given[2] else 1)}

    def numbered(number: int) -> tuple:
        return (*batch(number), number == 9)  # the second micro-batch of step 5

    with pytest.raises(FitError, match=r"^step 5: the loss is not finite \(error = nan, size = ") as caught:
        fit(network(), breaks, numbered, SETTINGS, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))  # what is beyond cannot be written
    try:
        with pytest.raises(FitError, match=r"cannot be written .*make room there") as caught:
            train(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("step-*"))
    train(tmp_path, replace(SETTINGS, steps=10))  # and goes on when there is room


def test_frozen_parameters_stay_and_settings_are_checked(tmp_path: Path) -> None:
    model = network()
    first = model[0].requires_grad_(False)
    before = first.weight.clone()
    fit(model, loss, batch, replace(SETTINGS, steps=3), tmp_path)
    assert torch.equal(first.weight, before)
    with pytest.raises(FitError, match="no parameter"):
        fit(nn.ReLU(), loss, batch, SETTINGS, tmp_path / "none")
    with pytest.raises(FitError, match="steps = 0"):
        replace(SETTINGS, steps=0)
    if not torch.cuda.is_available():
        with pytest.raises(FitError, match="sees no GPU"):
            train(tmp_path / "gpu", device="cuda")


TWO = """
import os
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
from dataclasses import replace
from test_fit import SETTINGS, train
torch.set_num_threads(1)
fitted = train(Path({folder!r}), replace(SETTINGS, steps=20, accumulate=1))
told = Path({folder!r}).with_name("told-" + os.environ["RANK"])
told.write_text(repr((fitted.best_step, fitted.best_value, fitted.best)))
"""


@pytest.mark.slow
def test_two_processes_take_the_steps_that_one_takes_with_twice_the_batches(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "two")))
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said = {path.read_text() for path in tmp_path.glob("told-*")}
    assert len(said) == 1
    assert "(20, " in said.pop()  # both know the best step, though only one has validated
    one = train(tmp_path / "one", replace(SETTINGS, steps=20, accumulate=2))
    a, b = (load_file(at / one.last.parent.name / "weights.safetensors") for at in (tmp_path / "one", tmp_path / "two"))
    assert all(torch.allclose(a[name], b[name], atol=1e-5) for name in a)
    assert not torch.equal(a["0.weight"], network().state_dict()["0.weight"])
