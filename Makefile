# Two commands do everything:   make reproduce   and   make test
# Needs: Python 3.11 with venv, make, and a Python package registry that pip can reach. Nothing is installed
# outside this folder and nothing is registered globally (no Jupyter kernel in the home folder).

PROFILE ?= mini
CORES   ?= 2
PYTHON  ?= $(shell command -v python3.11 || command -v python3)
VENV    := .venv
STAMP   := $(VENV)/.installed
ROOT    := $(CURDIR)
PIP     := $(VENV)/bin/python -m pip install --disable-pip-version-check --quiet

# Notebooks start the kernel "python3": with the environment first, that is .venv/bin/python.
export PATH := $(ROOT)/$(VENV)/bin:$(PATH)
export JUPYTER_PREFER_ENV_PATH := 1
unexport PYTHONPATH PYTHONHOME

.DEFAULT_GOAL := help
.PHONY: help reproduce sweep site test smoke lab lab-test lint mace ship readme strip install clean distclean

help: ## show this list
	@echo "make TARGET [PROFILE=mini|smoke|published_small|one_gpu|paper] [CORES=2] [PYTHON=/path/to/python3.11]"
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' Makefile | expand -t 14

reproduce: $(STAMP) ## pre-train, fine-tune all 40 tasks, write tables and figures to results/$(PROFILE)/
	$(VENV)/bin/python -m jmp_lib reproduce --profile $(PROFILE)

sweep: $(STAMP) ## the same runs as jobs of Snakemake, CORES at once (data: python -m jmp_lib sweep --data-root ...)
	$(VENV)/bin/python -m jmp_lib sweep --profile $(PROFILE) --cores $(CORES)

site: $(STAMP) ## executed notebooks, docs and reports as one static site: open site/index.html
	$(VENV)/bin/python -m tools.site

# A file's tests stay in one process (fixtures are made once), files in the order of tests/conftest.py: the long ones first.
test: $(STAMP) ## run the tests in CORES processes, with the slowest ones listed
	$(VENV)/bin/python -m pytest -q -n $(CORES) --dist loadfile --no-loadscope-reorder --durations=15

smoke: $(STAMP) ## run every notebook in about 4 minutes; its numbers mean nothing
	$(VENV)/bin/python -m jmp_lib reproduce --profile smoke

lab: $(STAMP) ## open the notebooks in JupyterLab
	$(VENV)/bin/python -m jupyter lab --notebook-dir="$(ROOT)"

lab-test: $(STAMP) ## run notebooks in JupyterLab in a real browser (needs chromium and chromedriver)
	@$(VENV)/bin/python -c 'import selenium' 2>/dev/null || $(PIP) -c requirements.lock 'selenium>=4.20'
	$(VENV)/bin/python -m pytest -q tests/lab_in_browser.py

lint: $(STAMP) ## check the code with ruff
	$(VENV)/bin/python -m ruff check

mace: $(STAMP) ## add MACE, a baseline of notebook 15, to the environment (without changing anything in it)
	$(PIP) --no-deps -r requirements-mace.txt

ship: $(STAMP) ## for maintainers: put the results of PROFILE in the place of those in results/shipped (then: make readme)
	$(VENV)/bin/python -m tools.ship $(PROFILE)

readme: $(STAMP) ## write the measured parts of README.md, docs/results.md and docs/speed.md from results/shipped/
	$(VENV)/bin/python -m tools.readme

strip: $(STAMP) ## remove outputs from notebooks/ before a commit
	$(VENV)/bin/nbstripout --keep-id --extra-keys "metadata.papermill cell.metadata.papermill" notebooks/*.ipynb

install: $(STAMP) ## only make .venv with the locked environment

# Step 1 installs exactly the lock: no resolver runs, so none can choose another torch. Step 2 adds what the torch build
# at hand wants besides (nothing for a CPU build; the CUDA libraries that a CUDA build pins), within the same lock.
$(STAMP): requirements.lock requirements-nodeps.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
	  echo "Python 3.11 is needed, '$(PYTHON)' is not it: install it, or name it with  make PYTHON=/path/to/python3.11"; exit 1; }
	@$(VENV)/bin/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV) || { \
	  echo "Making $(VENV) failed: on Debian, 'apt-get install python3.11-venv' provides what is missing."; exit 1; }
	@echo "Installing the locked environment into $(VENV) (once; a few minutes) ..."
	$(PIP) --no-deps -r requirements.lock
	$(PIP) --no-deps -r requirements-nodeps.txt
	$(PIP) -c requirements.lock torch
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

clean: ## remove caches, results/smoke and unfinished work (results/*/work: checkpoints, predictions)
	rm -rf build dist *.egg-info .pytest_cache results/smoke results/*/work results/*/live/work results/*/variants/*/work
	find jmp_lib tests notebooks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
	find . -path ./$(VENV) -prune -o -name .ipynb_checkpoints -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv
	rm -rf $(VENV)
