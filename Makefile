# make demo    a synthetic dataset, end to end: prepare, eval, leaderboard
# make demo-generators    the tiny generators, trained on it; a table of four clips that they made
# make test    lint, types, layers, tests                make slow    the minutes-long tests
# make lint    the first three of those                  make clean   remove .venv and caches, never a workspace
# make parity  docs/parity.md anew: each metric against other implementations, on ../shared/data
# make upstream CHECKOUTS=DIR  do the originals below DIR take the arguments that benchmark/methods gives them?
#
# Each builds .venv first when it is missing or older than pyproject.toml or constraints.txt. With TORCH=keep the torch
# that you installed into .venv yourself (a CUDA build, say) stays: python3.11 -m venv .venv, .venv/bin/pip install
# torch ..., make TORCH=keep demo.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.PHONY: demo demo-generators test slow parity upstream lint clean
.DEFAULT_GOAL := test

PYTHON := .venv/bin/python

demo: .venv/.stamp
	@$(PYTHON) -m benchmark.cli demo --accept

demo-generators: .venv/.stamp
	@$(PYTHON) -m benchmark.cli demo --generators --accept

# A file's tests stay in one process: they share what is made once a file.
test: lint
	@$(PYTHON) -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

slow: .venv/.stamp
	@$(PYTHON) -m pytest -m slow

parity: .venv/.stamp
	@$(PYTHON) -m pytest -m parity --parity-report=docs/parity.md

upstream: .venv/.stamp
	@$(PYTHON) -m benchmark.upstream "$(CHECKOUTS)"

lint: .venv/.stamp
	@$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	.venv/bin/lint-imports

clean:
	@rm -rf .venv build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find benchmark leaderboards metrics pipelines reference_models tests -name __pycache__ -prune -exec rm -rf {} +

.venv/.stamp: pyproject.toml constraints.txt
	@fail() { echo "make: $$*" >&2; exit 1; }
	supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))'
	if [[ ! -x $(PYTHON) ]]; then
	    for candidate in python3.11 python3.12 python3 none; do # a name on PATH may be a shim that does not run
	        "$$candidate" -c "$$supported" 2>/dev/null && break
	    done
	    [[ $$candidate != none ]] || fail "found no Python 3.11 or 3.12 (tried python3.11, python3.12, python3)"
	    "$$candidate" -m venv .venv || fail "$$candidate -m venv failed; on Debian and Ubuntu, install python3-venv"
	fi
	$(PYTHON) -c "$$supported" 2>/dev/null || fail ".venv has no working Python 3.11 or 3.12; run make clean"
	$(PYTHON) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m ensurepip >/dev/null || fail ".venv has no pip; run make clean"
	cp constraints.txt .venv/constraints.txt
	if [[ "$(TORCH)" == keep ]]; then
	    torch=$$($(PYTHON) -c 'import torch; print(torch.__version__)') || fail "TORCH=keep, but .venv has no torch"
	    sed "s/^torch==.*/torch==$$torch/" constraints.txt > .venv/constraints.txt
	fi
	echo "Installing into .venv what constraints.txt pins: about 0.7 GB with a CPU build of torch, 4 GB with a CUDA build."
	echo "What .venv already has is not downloaded again; interrupted, the same command goes on. The demo also fetches"
	echo "two networks, 0.1 GB, and says so before."
	$(PYTHON) -m pip install --disable-pip-version-check --constraint .venv/constraints.txt --editable '.[dev]' \
	    || fail "pip could not install the packages (its message is above); run the same command again to go on"
	# The optional packages ask for an OpenCV of their own and for torchvision: they are installed without on purpose.
	contradictions=$$($(PYTHON) -m pip check | grep -v '^No broken requirements found' \
	    | grep -vE '^(insightface|face-alignment|lpips) .* requires (opencv-python|torchvision),' || true)
	[[ -z "$$contradictions" ]] || fail "the installed packages contradict each other: $$contradictions"
	$(PYTHON) -m benchmark.doctor
	touch .venv/.stamp
