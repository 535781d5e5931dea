# Every target makes .venv if it is missing. EXTRAS names the extras of setup.cfg that are installed.
PYTHON ?= python3
EXTRAS ?= test
BIN := .venv/bin
OUT ?= runs/gpu
WHEELS ?= .whl

.PHONY: demo test test-long check bench gpu docs clean

demo: .venv/installed
	$(BIN)/python -m hrseg.toycity --out data/toycity
	$(BIN)/python tools/train.py configs/demo.yaml --resume auto
	$(BIN)/python tools/test.py --checkpoint runs/demo/checkpoints/best.pt

test: .venv/installed
	$(BIN)/python -m pytest -m "not long and not gpu" --numprocesses=2 --dist=loadfile --max-worker-restart=0

test-long: .venv/installed
	$(BIN)/python -m pytest -m long --numprocesses=2 --dist=loadfile --max-worker-restart=0

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/installed
	$(BIN)/python -m pip install --quiet --editable ".[bench]"
	$(BIN)/python tools/benchmark.py all --short --markdown docs/benchmarks.md

# With the python3 that is there if its PyTorch sees a GPU, and with the wheels in WHEELS if it lacks packages; else .venv.
gpu:
	@if $(PYTHON) -c "import sys, torch; sys.exit(not torch.cuda.is_available())" 2>/dev/null; then \
	  if ls $(WHEELS)/*.whl >/dev/null 2>&1; then \
	    $(PYTHON) -m pip install --quiet --no-index --no-deps --upgrade --target $(WHEELS)/site $(WHEELS)/*.whl; \
	  fi; \
	  PYTHONPATH=$(abspath $(WHEELS))/site:$(CURDIR) $(PYTHON) tools/benchmark.py gpu --out $(OUT); \
	else \
	  $(MAKE) --no-print-directory .venv/installed && $(BIN)/python tools/benchmark.py gpu --out $(OUT); \
	fi

.venv/installed: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[$(EXTRAS)]"
	touch $@

docs: .venv/installed
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	$(BIN)/python -m hrseg.config docs/configuration.md
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv build site dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
