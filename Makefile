# Every target does its own set-up, in .venv; nothing is done twice. `make help` lists them.
# On Windows, or without make: see README.md.

SUPPORTED := import sys; sys.exit(not sys.version_info >= (3, 11))
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c "$(SUPPORTED)" 2>/dev/null && { echo $$p; break; }; done)
RUN := .venv/bin/python -m
export JUPYTER_PLATFORM_DIRS := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev lab test course notebooks lint

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' Makefile

setup: ## a virtual environment with everything the course needs, and the texts
	@$(or $(PYTHON),$(error no Python 3.11 or later was found; install one, or name it: make PYTHON=/path/to/python)) minigpt/bootstrap.py course

setup-dev:
	@$(or $(PYTHON),$(error no Python 3.11 or later was found; install one, or name it: make PYTHON=/path/to/python)) minigpt/bootstrap.py dev

lab: setup ## set up, then open the course in JupyterLab
	@$(RUN) jupyter lab notebooks/00_start_here.ipynb

test: setup-dev ## set up, then run every test and every cell of every notebook
	@$(RUN) ruff format --check . && $(RUN) ruff check .
	@$(RUN) pytest

course: setup ## run every notebook headless and write the course as HTML into build/course
	@$(RUN) minigpt.course html $(ONLY)

notebooks: setup-dev ## run every notebook and store it with its outputs (ONLY=03 for one)
	@$(RUN) minigpt.course store $(ONLY)

lint: setup-dev ## format and lint the package, the tests and the notebooks
	@$(RUN) ruff format . && $(RUN) ruff check --fix .
