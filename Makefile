# make run    set up on first use, then open the studio        HOST=… PORT=… SHARE=1 make run
# make test   set up, then the whole test suite                make demo   the main job from end to end, without a browser
# make check  ruff, format, types                              make lock   pin the requirements anew
# make test-space   build a Hugging Face Space with its builder's commands (3 GB) and run the main job in it

PYTHON ?= python3
VENV := .venv/bin/python
ARGS ?=
WORKERS ?= 2

export SAGE_STUDIO_HOST ?= $(HOST)
export SAGE_STUDIO_PORT ?= $(PORT)
export SAGE_STUDIO_SHARE ?= $(SHARE)

.PHONY: run test test-space demo check lock install install-dev

run: install
	@exec $(VENV) app.py

demo: install
	@exec $(VENV) scripts/demo.py

test: install-dev
	@$(VENV) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-space: install-dev
	@$(VENV) -m pytest -n 0 -s tests/space_build.py $(ARGS)

check: install-dev
	@$(VENV) -m ruff check .
	@$(VENV) -m ruff format --check .
	@$(VENV) -m mypy

lock:
	@$(VENV) scripts/lock.py

install:
	@$(PYTHON) scripts/install.py

install-dev:
	@$(PYTHON) scripts/install.py --dev
