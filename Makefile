# Everything is set up on the way: all this needs is make, a C compiler and Python 3.11 or newer with its venv module.
# PYTHON names the interpreter of .venv; the tests run on the newest Python found, with PYTHONS=all on each.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml $(shell find src -name '*.py' -o -name '*.pyx' -o -name '*.pxd')
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-peers test-sanitizers lint bench clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "  make %-12s %s\n", $$1, $$2 }'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than Python 3.11: make PYTHON=…"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The compiled build, anew when a source has changed. In a copy: nothing is built inside the tree.
$(VENV)/.installed: $(BIN)/python $(SOURCES)
	rm -rf $(VENV)/source && mkdir $(VENV)/source
	cp -r src setup.py pyproject.toml README.md LICENSE $(VENV)/source
	find $(VENV)/source -name '*.so' -delete
	HEADRACE_REQUIRE_EXTENSIONS=1 $(BIN)/pip install -q '$(VENV)/source[demo]'
	HEADRACE_REQUIRE_EXTENSIONS=1 $(BIN)/pip install -q --no-deps --force-reinstall $(VENV)/source
	rm -rf $(VENV)/source
	@touch $@

$(BIN)/nox: $(BIN)/python
	$(BIN)/pip install -q 'nox>=2024.10'
	@touch $@

demo: $(VENV)/.installed  ## small programs on real sockets, then what a message costs beside asyncio (under a minute)
	$(BIN)/headrace demo

test: $(BIN)/nox  ## lint, types, and all tests on both builds; PYTHONS=all for each Python found, not the newest only
	PYTHONS=$(PYTHONS) $(BIN)/nox

test-peers: $(BIN)/nox  ## the tests that need programs of the system (redis-server and the like; as root it installs what is missing)
	.ci/packages redis-server socat openssl curl strace haproxy systemd:/usr/bin/systemd-socket-activate nginx-light:/usr/sbin/nginx libnginx-mod-stream:/usr/lib/nginx/modules/ngx_stream_module.so
	$(BIN)/nox -s peers

test-sanitizers: $(BIN)/nox  ## the tests with gcc's address and undefined-behaviour sanitizers in every compiled module
	$(BIN)/nox -s sanitizers

lint: $(BIN)/nox  ## ruff, mypy --strict and pyright
	$(BIN)/nox -s lint types

bench: $(VENV)/.installed $(BIN)/nox  ## the benchmarks; ARGS="--list" and so on
	$(BIN)/pip install -q rich trustme uvloop aiofastnet trio anyio matplotlib
	$(BIN)/python -m benchmarks $(ARGS)

clean:  ## remove everything that the others made
	rm -rf $(VENV) .nox build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis benchmarks/.build
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
