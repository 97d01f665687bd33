# make run    set up on first use, then open the studio        HOST=… PORT=… SHARE=1 make run
# make test   set up, then the whole test suite                make demo   the main job from end to end, without a browser
# make test-fast                                               without engine, browser and training
# make check  ruff, format, types                              make lock   pin the requirements anew
# make mutants  mutation tests of the modules that check input, or of some: ARGS="sage_studio.files*"
# make test-openapi  schemathesis over the REST API of a real studio
# make translations  collect the messages of the code and compile the catalogues of sage_studio/locale
# make docs   build the documentation site into site/, strictly
# make doctor what this machine can and cannot do, and the command that mends it
# make test-space   build a Hugging Face Space with its builder's commands (3 GB) and run the main job in it

PYTHON ?= python3
VENV := .venv/bin/python
ARGS ?=
WORKERS ?= 2
PYTEST = $(VENV) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

export SAGE_STUDIO_HOST ?= $(HOST)
export SAGE_STUDIO_PORT ?= $(PORT)
export SAGE_STUDIO_SHARE ?= $(SHARE)

.PHONY: run test test-fast test-openapi test-space mutants demo check translations docs doctor lock install install-dev

run: install
	@exec $(VENV) app.py

demo: install
	@exec $(VENV) scripts/demo.py $(ARGS)

test: install-dev
	@$(PYTEST) $(ARGS)

test-fast: install-dev
	@$(PYTEST) -m "not engine and not browser and not training" $(ARGS)

test-openapi: install-dev
	@$(VENV) -m pytest -n 0 -s tests/openapi_fuzz.py $(ARGS)

test-space: install-dev
	@$(VENV) -m pytest -n 0 -s tests/space_build.py $(ARGS)

mutants: install-dev
	@nice $(dir $(VENV))mutmut run --max-children $(WORKERS) $(ARGS)
	@$(dir $(VENV))mutmut results

check: install-dev
	@$(VENV) -m ruff check .
	@$(VENV) -m ruff format --check .
	@$(VENV) -m mypy

translations: install-dev
	@$(VENV) scripts/translations.py $(ARGS)

docs: install-dev
	@$(VENV) scripts/docs.py $(ARGS)

doctor:
	@$(PYTHON) scripts/doctor.py $(ARGS)

lock:
	@$(VENV) scripts/lock.py

install:
	@$(PYTHON) scripts/install.py

install-dev:
	@$(PYTHON) scripts/install.py --dev
