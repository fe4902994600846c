# make demo, make test: each sets itself up first (virtual environment in .venv, exact versions of requirements.lock).
# Another Python: make demo PYTHON=/path/to/python3.12      Another place: make demo VENV=/tmp/venv

SHELL := /bin/sh
VENV ?= .venv
PYTHON ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO ?= data/demo

.PHONY: help install demo test lint lock clean

help:
	@echo "make demo     draw scenes, train a captioner on them, score it and picture its attention (minutes)"
	@echo "make test     the whole test suite"
	@echo "make install  only the virtual environment in $(VENV)"
	@echo "make lint     ruff"
	@echo "make lock     renew requirements.lock from setup.py (needs uv)"
	@echo "make clean    delete $(VENV) and $(DEMO)"

install: $(READY)

# The first Python from 3.10 to 3.12, else one line that says what is missing.
$(READY): requirements.lock setup.py
	@set -e; chosen=; \
	for python in $(if $(PYTHON),"$(PYTHON)",python3 python3.12 python3.11 python3.10 python); do \
	  if "$$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then \
	    chosen=$$python; break; fi; \
	done; \
	if [ -z "$$chosen" ]; then \
	  echo "error: no Python 3.10, 3.11 or 3.12 found$(if $(PYTHON), at $(PYTHON)); install one, or name it: make demo PYTHON=/path/to/python3.12" >&2; exit 2; fi; \
	if ! "$$chosen" -c 'import venv, ensurepip' 2>/dev/null; then \
	  echo "error: $$chosen lacks the venv module; install it (Debian, Ubuntu: apt install python3-venv) and run the same command again" >&2; exit 2; fi; \
	echo "setting up $(VENV) with $$("$$chosen" --version) (once; downloads about 810 MB, 2.6 GB on disk)"; \
	"$$chosen" -m venv --clear "$(VENV)"; \
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -r requirements.lock; \
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .; \
	touch "$@"

demo: $(READY)
	$(BIN)/python prepro.py --dataset shapes --draw 2500,100,200 --images $(DEMO)/scenes \
	    --encoder vgg19 --weights random --layer conv3_1 --image-size 56 --resize squash --out $(DEMO)/features
	$(BIN)/python train.py $(DEMO)/features --out $(DEMO)/run --config data/recipes/shapes.json
	$(BIN)/python evaluate.py $(DEMO)/run --split test

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .

lock:
	uv pip compile setup.py --extra dev --universal --python-version 3.10 --no-annotate \
	    --custom-compile-command 'make lock' --output-file requirements.lock

clean:
	rm -rf $(VENV) $(DEMO)
