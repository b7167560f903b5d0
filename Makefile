# `make` lists the targets. Each works from a bare checkout: it makes the virtual environments,
# and builds what is out of date.

PYTHON ?= python3
VENV ?= .venv
# A folder with a harness for the Autobahn TestSuite: .ci/autobahn says what it has to offer.
AUTOBAHN ?=
# Extra arguments for pytest: make test PYTEST_ARGS="-k close -x"
PYTEST_ARGS ?=
# Arguments of the benchmarks: make bench BENCH_ARGS="--quick"
BENCH_ARGS ?=
# 0: let warnings of Cython and of the C compiler pass
WERROR ?= 1
# 0: compile the wheel without a profile; 1 takes GCC (docs/building.md)
PGO ?= $(if $(filter Linux,$(shell uname -s)),1,0)

BIN := $(VENV)/bin
# Stamps live with what they stand for, so that removing the one removes the other.
DEV_STAMP := $(VENV)/.stamp-dev
DOCS_STAMP := $(VENV)/.stamp-docs
EXT_STAMP := $(VENV)/.stamp-ext
NODE := tests/interop/far/node
NODE_STAMP := $(NODE)/node_modules/.stamp
DEMO_VENV := .venv-demo
DEMO_STAMP := $(DEMO_VENV)/.stamp
SANITIZE_DIR := build/sanitize

EXT_SOURCES := setup.py $(shell find ext -name '*.pyx' -o -name '*.pxd' -o -name '*.h' 2>/dev/null)
# Modules that are compiled from their Python source: those with a .pxd under ext/.
EXT_SOURCES += $(wildcard $(patsubst ext/%.pxd,src/%.py,$(shell find ext -name '*.pxd' 2>/dev/null)))
SOURCES := $(EXT_SOURCES) pyproject.toml $(shell find src -name '*.py' -o -name py.typed 2>/dev/null)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv ext demo test coverage lint format bench bench-check docs wheel sanitize \
	autobahn autobahn-full autobahn-harness check-csrc interop interop-node clean distclean

help: ## list the targets
	@echo "Targets:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) \
	  | while IFS='|' read -r name text; do printf '  %-12s %s\n' "$$name" "$$text"; done

$(DEV_STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q --group dev
	FULLDUPLEX_REQUIRE_EXT=0 FULLDUPLEX_NO_EXT=1 $(BIN)/python -m pip install -q --no-build-isolation -e '.[router,socks]'
	touch $@

venv: $(DEV_STAMP) ## make the development environment in .venv

$(EXT_STAMP): $(DEV_STAMP) $(EXT_SOURCES)
	FULLDUPLEX_REQUIRE_EXT=1 FULLDUPLEX_WERROR=$(WERROR) \
	  $(BIN)/python setup.py -q build_ext --inplace
	touch $@

ext: $(EXT_STAMP) ## build the extension in place

$(DEMO_STAMP): $(SOURCES)
	test -x $(DEMO_VENV)/bin/python || $(PYTHON) -m venv $(DEMO_VENV)
	FULLDUPLEX_REQUIRE_EXT=1 $(DEMO_VENV)/bin/python -m pip install -q --disable-pip-version-check \
	  --force-reinstall .
	touch $@

demo: $(DEMO_STAMP) ## build, then let a client and a server process exchange messages
	$(DEMO_VENV)/bin/python examples/demo.py

check-csrc: ## test the C headers by themselves, under sanitizers too
	$(MAKE) -C tests/csrc check sanitize

# Without npm, or where it fails, the tests with Node are skipped, and say why.
$(NODE_STAMP): $(NODE)/package.json
	@if ! command -v npm >/dev/null; then \
	  echo "there is no npm: tests with Node are skipped"; \
	elif npm install --prefix $(NODE) --no-audit --no-fund --no-package-lock --loglevel=error; then \
	  touch $@; \
	else \
	  echo "npm failed: tests with Node are skipped"; \
	fi

interop-node: $(NODE_STAMP) ## install what the tests with Node need

interop: ext interop-node ## talk to other programs, and write the table of what worked
	FULLDUPLEX_REQUIRE_EXT=1 FULLDUPLEX_INTEROP_TABLE=docs/interoperability.md \
	  $(BIN)/python -m pytest -q tests/interop $(PYTEST_ARGS)

test: ext check-csrc interop-node ## run all tests, on both implementations
	FULLDUPLEX_REQUIRE_EXT=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

coverage: ext ## measure the branch coverage of the Python sources
	$(BIN)/python -m coverage erase
	FULLDUPLEX_REQUIRE_EXT=1 $(BIN)/python -m coverage run -m pytest -q $(PYTEST_ARGS)
	$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage report

lint: ext ## check style, types, the Cython code and the workflows
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict src
	@# `ext` above was built with warnings of Cython and of the C compiler as errors.
	$(BIN)/validate-pyproject pyproject.toml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/zizmor --offline --quiet .github

format: $(DEV_STAMP) ## put the Python code in order
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: ## measure ourselves and others, and draw the charts (half an hour)
	$(PYTHON) -m benchmarks all $(BENCH_ARGS)

bench-check: ## compare measured ratios with their expected ranges
	$(PYTHON) -m benchmarks setup
	.venv-bench/bin/python -m benchmarks check $(BENCH_ARGS)

$(DOCS_STAMP): $(DEV_STAMP)
	$(BIN)/python -m pip install -q --group docs
	touch $@

docs: $(DOCS_STAMP) ## build the documentation, warnings as errors
	FULLDUPLEX_PURE_PYTHON=1 $(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

wheel: $(DEV_STAMP) ## build sdist and wheels, and test each where the sources are not
	rm -rf dist
	FULLDUPLEX_REQUIRE_EXT=1 FULLDUPLEX_PGO=$(PGO) $(BIN)/python -m build -q
	FULLDUPLEX_REQUIRE_EXT=0 FULLDUPLEX_NO_EXT=1 $(BIN)/python -m build -q --wheel
	@ls -l dist
	for wheel in dist/*.whl; do .ci/test-wheel "$(PYTHON)" "$$wheel" $(PYTEST_ARGS) || exit; done

# The interpreter is not instrumented, so the runtime comes in by LD_PRELOAD, and what the
# interpreter keeps until it exits is not counted as a leak. What is freed is kept for a while, to find out who still
# uses it: so what a test may say of the size of the process does not hold. gevent copies stacks whole, which the
# sanitizer takes for an error.
sanitize: $(DEV_STAMP) check-csrc ## run the tests with AddressSanitizer and UBSan
	FULLDUPLEX_SANITIZE=1 FULLDUPLEX_REQUIRE_EXT=1 $(BIN)/python setup.py -q build \
	  --build-base $(SANITIZE_DIR) --build-lib $(SANITIZE_DIR)/lib
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc \
	FULLDUPLEX_REQUIRE_EXT=1 PYTHONPATH=$(CURDIR)/$(SANITIZE_DIR)/lib \
	  $(BIN)/python -m pytest -q -k "not pure and not leave_nothing_behind and not gevent" -m "not interop and not stress" \
	  -o timeout=300 -o faulthandler_timeout=600 $(PYTEST_ARGS)

autobahn-harness:
	@.ci/autobahn "$(AUTOBAHN)"

autobahn: autobahn-harness ext ## run the quick selection of the Autobahn TestSuite, all four ways
	.ci/autobahn "$(AUTOBAHN)" "$(BIN)/python"

autobahn-full: autobahn-harness ext ## run all of the Autobahn TestSuite (40 minutes), and write its table
	EXCLUDE= .ci/autobahn "$(AUTOBAHN)" "$(BIN)/python" docs/conformance.md

clean: ## remove what was built
	$(MAKE) -s -C tests/csrc clean
	rm -rf build dist docs/_build .coverage .coverage.* htmlcov $(EXT_STAMP) $(DEMO_STAMP)
	find src -name '*.so' -delete
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

distclean: clean ## remove the environments and caches too
	rm -rf $(VENV) $(DEMO_VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks *.egg-info src/*.egg-info
