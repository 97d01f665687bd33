# make run    set up on first use, then open the studio        HOST=… PORT=… SHARE=1 make run
# make test   set up, then the whole test suite                make demo   the main job from end to end, without a browser
# make check  ruff, format, types                              make lock   pin the requirements anew
# make doctor what this machine can and cannot do, and the command that mends it

PYTHON ?= python3
VENV := .venv/bin/python
ARGS ?=
WORKERS ?= 2

export SAGE_STUDIO_HOST ?= $(HOST)
export SAGE_STUDIO_PORT ?= $(PORT)
export SAGE_STUDIO_SHARE ?= $(SHARE)

.PHONY: run test demo check doctor lock install install-dev

run: install
	@exec $(VENV) app.py

demo: install
	@exec $(VENV) scripts/demo.py $(ARGS)

test: install-dev
	@$(VENV) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: install-dev
	@$(VENV) -m ruff check .
	@$(VENV) -m ruff format --check .
	@$(VENV) -m mypy

doctor:
	@$(PYTHON) scripts/doctor.py $(ARGS)

lock:
	@$(VENV) scripts/lock.py

install:
	@$(PYTHON) scripts/install.py

install-dev:
	@$(PYTHON) scripts/install.py --dev
