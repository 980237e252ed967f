# Everything runs in .venv, which the first target that needs it makes.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
SHELL := /bin/bash
# two processes of one thread each, more would wait for each other; a file to one of them, so that its fixtures are made once;
# tests/reliability runs in `make sweeps`, at its proper size
FAST_TESTS = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --ignore=tests/reliability --durations=10

.PHONY: demo dist test browser test-extras check options sweeps slow reliability clean

.venv/.installed: requirements.txt requirements-dev.txt
	command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; hint: make PYTHON=python3 $(MAKECMDGOALS)"; exit 4; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	# our tests and figures are of this version; requirements.txt, which then leaves it, takes a range
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

demo: .venv/.installed  ## from the bundled novel to three samples, in minutes
	PATH="$(CURDIR)/$(BIN):$$PATH" ./demo.sh

# the wheel is built from the sdist: a source that lacks something would be seen, and nothing old lies about
dist: .venv/.installed  ## wheel and sdist in dist/, without a network
	rm -rf dist
	$(BIN)/python -c "from setuptools.build_meta import build_sdist; build_sdist('dist')"
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist dist/novelgpt-*.tar.gz

test: .venv/.installed  ## the fast suite
	$(FAST_TESTS)

browser: .venv/.installed  ## the pages in a real browser, four minutes; skipped without chromium-headless-shell
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "browser and not slow and not sweep" --timeout 120 -rs --durations=5

test-extras: .venv/.installed  ## install the optional packages (2 GB, most of it MindSpore) and run their tests
	$(BIN)/python -m pip install --quiet -r requirements-extras.txt
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m extras -rs

check: .venv/.installed  ## lint, format, fast suite
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(FAST_TESTS)

options: .venv/.installed  ## docs/options.md and docs/options_zh.md from the tables of options
	PYTHONPATH=. $(BIN)/python tests/cli/options_pages.py docs

SWEEPS := tests/reliability --timeout 3600 --durations=10 -m
sweeps: .venv/.installed  ## the sweeps that every change must pass, half an hour
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "sweep or pretended" --timeout 1500 --durations=10
	OMP_NUM_THREADS=1 RELIABILITY=ci $(BIN)/python -m pytest -n 2 $(SWEEPS) "not slow"

slow: .venv/.installed  ## the long sweeps
	$(BIN)/python -m pytest -m slow

# the sweeps of tests/reliability, two at a time; then those that need the whole machine
reliability: .venv/.installed  ## every promise of docs/RELIABILITY.md, twenty minutes and more; SIZE=large for a night
	rm -rf build/reliability && mkdir -p build/reliability
	export OMP_NUM_THREADS=1 RELIABILITY=$(or $(SIZE),ci) RELIABILITY_RESULTS=build/reliability/results.jsonl; \
	$(BIN)/python -m pytest -n 2 $(SWEEPS) "not slow"; code=$$?; \
	OMP_NUM_THREADS=$$(nproc) $(BIN)/python -m pytest $(SWEEPS) slow || code=$$?; \
	$(BIN)/python tests/reliability/report.py $$RELIABILITY_RESULTS docs/RELIABILITY.md || code=$$?; exit $$code

clean:
	rm -rf .venv .pytest_cache .ruff_cache build dist *.egg-info
