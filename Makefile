# Python 3.11 or newer; every target sets up what it needs in .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: setup demo test check bench gpu soak

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: setup
	$(BIN)/lakelens demo

# Two processes: one has the tests with Ray, the other one those without. One that hangs for good ends alone.
test: setup
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder --durations 10 $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

# On a machine with an NVIDIA GPU, in under nine minutes: what is tested and measured nowhere else. It installs nothing.
gpu:
	$(or $(wildcard $(BIN)/python),$(PYTHON)) -m pytest -m gpu -p no:cacheprovider tests/engines tests/runs
	$(or $(wildcard $(BIN)/python),$(PYTHON)) -m benchmarks.gpu $(ARGS)

# Hours of kills and faults; `make test` has a few rounds of it.
soak: setup
	LAKELENS_EVERY_STEP=1 $(BIN)/python -m pytest --timeout 3600 -o faulthandler_timeout=4000 \
		tests/runs/test_suspended.py tests/cluster/test_connection.py tests/cluster/test_spot.py \
		tests/cluster/test_autoscaling.py tests/cluster/test_submission.py tests/labels/test_killed_relabelling.py \
		tests/labels/test_relabelling.py tests/output/test_changes.py tests/export/test_changed_rows.py tests/runs/test_encoders.py \
		tests/search/test_index_update.py tests/search/test_index_writers.py
	$(BIN)/python -m tests.chaos --store local --rounds 100
	$(BIN)/python -m tests.chaos --store s3 --rounds 40

# Daft wants another pyarrow: it has an environment of its own.
benchmarks/.peers/bin/python:
	$(PYTHON) -m venv benchmarks/.peers
	$@ -m pip install --quiet --disable-pip-version-check 'daft>=0.7' 'pyarrow<26' numpy pillow

bench: setup benchmarks/.peers/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks.bench $(ARGS)
