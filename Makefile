# Every target does its own set-up, in .venv; nothing is done twice. `make help` lists them.
# On Windows, or without make: see README.md.

SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c "$(SUPPORTED)" >/dev/null 2>&1 && { echo $$p; exit; }; done; echo python3)
SETUP := $(PYTHON) minigpt/bootstrap.py
RUN := .venv/bin/python -m
ROOT := $(shell test "$$(id -u)" != 0 || echo --allow-root)

# Jupyter keeps to the platform's own folders, and its debugger is quiet about what nobody asked.
export JUPYTER_PLATFORM_DIRS := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev lab test course notebooks lint

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' Makefile

setup: ## a virtual environment with everything the course needs, and the texts
	@$(SETUP) course

setup-dev:
	@$(SETUP) dev

lab: setup ## set up, then open the course in JupyterLab (ARGS="--no-browser" for its options)
	@$(RUN) jupyterlab $(ROOT) --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb $(ARGS)

test: setup-dev ## set up, then test everything: package, exercises, every cell of every notebook (ARGS="-k model")
	@$(RUN) pytest $(ARGS)

course: setup ## run every notebook and write the course as HTML into build/course (ONLY=03 for one)
	@$(RUN) minigpt.course html $(ONLY)

notebooks: setup-dev ## run every notebook and store it with its outputs (ONLY=03 for one)
	@$(RUN) minigpt.course store $(ONLY)

lint: setup-dev ## format and lint the package, the tests and the notebooks
	@$(RUN) ruff format . && $(RUN) ruff check --fix .
