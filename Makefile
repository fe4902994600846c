# make demo, make test: each sets itself up first (virtual environment in .venv, exact versions of requirements.lock).
# Another Python: make demo PYTHON=/path/to/python3.12      Another place: make demo VENV=/tmp/venv

SHELL := /bin/sh
VENV ?= .venv
PYTHON ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO ?= data/demo
PACKAGE ?= build/package
TUTORIAL ?= docs/tutorial.ipynb

.PHONY: help install demo test lint docs tutorial package lock clean

help:
	@echo "make demo     draw scenes, train a captioner on them, score it and picture its attention (minutes)"
	@echo "make test     the whole test suite"
	@echo "make install  only the virtual environment in $(VENV)"
	@echo "make lint     ruff, mypy, and the order of imports between the rooms of core/"
	@echo "make docs     the API reference, in docs/api"
	@echo "make tutorial run docs/tutorial.ipynb and keep its outputs (minutes)"
	@echo "make package  wheel and sdist in $(PACKAGE), installed into an empty environment and tried there"
	@echo "make lock     renew requirements.lock from setup.py (needs uv)"
	@echo "make clean    delete $(VENV), $(DEMO) and docs/api"

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
	echo "setting up $(VENV) with $$("$$chosen" --version) (once; downloads about 930 MB, 2.9 GB on disk)"; \
	"$$chosen" -m venv --clear "$(VENV)"; \
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -r requirements.lock; \
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .; \
	touch "$@"

demo: $(READY)
	$(BIN)/python prepro.py --dataset shapes --draw 2500,100,200 --images $(DEMO)/scenes \
	    --encoder vgg19 --weights random --layer conv3_1 --image-size 56 --resize squash --out $(DEMO)/features
	$(BIN)/python train.py $(DEMO)/features --out $(DEMO)/run --config data/recipes/shapes.json
	$(BIN)/python evaluate.py $(DEMO)/run --split test --html $(DEMO)/page
	$(BIN)/python caption.py $(DEMO)/run $(DEMO)/scenes/images/00002000000[1-3].png

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal -rs --durations 20

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# What `pip install` gives: the dependencies of setup.py in their newest versions, and the commands, far from here.
package: $(READY)
	rm -rf "$(PACKAGE)"
	$(BIN)/python -m build --outdir "$(PACKAGE)" .
	$(BIN)/python -m venv "$(PACKAGE)/env"
	"$(PACKAGE)/env/bin/pip" install --quiet --disable-pip-version-check "$(PACKAGE)"/*.whl
	cd "$(PACKAGE)" && set -e; PATH="$$PWD/env/bin:$$PATH"; \
	    for name in prepro train evaluate caption; do sat-$$name --version; done; \
	    sat-prepro --quiet --dataset shapes --draw 40,10,10 --images scenes --encoder vgg19 --weights random \
	        --layer conv2_2 --image-size 32 --resize squash --out features; \
	    sat-train features --out run --set n_epochs=1 --set dim_hidden=32 --quiet; \
	    sat-evaluate run --html page --quiet; sat-caption run scenes/images/000000000001.png; \
	    python -m core export run exported
	"$(PACKAGE)/env/bin/pip" install --quiet --disable-pip-version-check --force-reinstall --no-deps "$(PACKAGE)"/*.tar.gz
	cd "$(PACKAGE)" && env/bin/sat-caption --version

docs: $(READY)
	$(BIN)/python docs/build_api.py

tutorial: $(READY)
	$(BIN)/python docs/run_tutorial.py $(TUTORIAL)

lock:
	uv pip compile setup.py --extra dev --universal --python-version 3.10 --no-annotate \
	    --custom-compile-command 'make lock' --output-file requirements.lock

clean:
	rm -rf $(VENV) $(DEMO) docs/api
