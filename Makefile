# Each target sets up what it needs. What has to be there is make, a C compiler, and Python 3.11 or
# newer with its venv module and headers: .ci/ready.py checks that first. PYTHON names the
# interpreter of .venv. The tests run on the newest Python found, with PYTHONS=all on each.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml $(shell find src -name '*.py' -o -name '*.pyx' -o -name '*.pxd')
PEERS := redis-server socat openssl curl strace haproxy systemd:/usr/bin/systemd-socket-activate \
	nginx-light:/usr/sbin/nginx libnginx-mod-stream:/usr/lib/nginx/modules/ngx_stream_module.so
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# A .venv that is unfinished, or whose interpreter is gone, does not count as made.
ifneq ($(shell test -e $(VENV)/.made && $(BIN)/python -c '' 2> /dev/null && echo whole),whole)
$(shell rm -f $(VENV)/.made)
endif

.DEFAULT_GOAL := help
.PHONY: help demo lint bench dist clean
.PHONY: test test-slow test-peers test-sanitizers test-debian test-world

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | \
		awk -F '\t' '{ printf "  make %-16s %s\n", $$1, $$2 }'

$(VENV)/.made:
	@command -v $(PYTHON) > /dev/null || { echo "missing: $(PYTHON). On Debian: apt-get install" \
		"python3 python3-venv python3-dev gcc libc6-dev"; exit 1; }
	@$(PYTHON) .ci/ready.py
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	@touch $@

# The compiled build, made again when a source changes. It is made in a copy, never inside the tree.
$(VENV)/.installed: $(VENV)/.made $(SOURCES)
	@$(BIN)/python .ci/ready.py
	rm -rf $(VENV)/source && mkdir $(VENV)/source
	cp -r src setup.py pyproject.toml README.md LICENSE $(VENV)/source
	find $(VENV)/source -name '*.so' -delete
	printf '[build_ext]\nparallel = 8\n' > $(VENV)/source/parallel.cfg
	HEADRACE_REQUIRE_EXTENSIONS=1 DIST_EXTRA_CONFIG=$(CURDIR)/$(VENV)/source/parallel.cfg \
		$(BIN)/pip wheel -q --no-deps -w $(VENV)/source $(VENV)/source
	$(BIN)/pip install -q "$$(echo $(VENV)/source/*.whl)[demo]"
	$(BIN)/pip install -q --no-deps --force-reinstall $(VENV)/source/*.whl
	rm -rf $(VENV)/source
	@touch $@

$(BIN)/nox: $(VENV)/.made
	$(BIN)/pip install -q 'nox>=2024.10'
	@touch $@

demo: $(VENV)/.installed  ## programs on real sockets, and what a message costs (under a minute)
	$(BIN)/headrace demo

test: $(BIN)/nox  ## lint, types, tests on both builds; PYTHONS=all: not the newest Python only
	PYTHONS="$(PYTHONS)" $(BIN)/nox

test-slow: $(BIN)/nox  ## the other tests: slow ones, asyncio's own streams, debug mode
	$(BIN)/nox -s slow

test-peers: $(BIN)/nox  ## tests against redis-server and others; as root, installs what is missing
	.ci/packages $(PEERS)
	$(BIN)/nox -s peers

test-sanitizers: $(BIN)/nox  ## the tests with gcc's address and undefined-behaviour sanitizers
	$(BIN)/nox -s sanitizers

# With the packages that the README names, and no more.
test-debian:  ## make demo and make test on minimal Debian 12, 13 and testing (root only)
	.ci/debian

test-world:  ## before a release: everything, everywhere (root only; hours)
	.ci/run --world

lint: $(BIN)/nox  ## ruff, mypy --strict, pyright, and what the built wheel tells type checkers
	$(BIN)/nox -s lint types typed

bench: $(VENV)/.installed $(BIN)/nox  ## the benchmarks; ARGS="--list" and so on
	$(BIN)/pip install -q rich trustme uvloop aiofastnet trio anyio matplotlib
	$(BIN)/python -m benchmarks $(ARGS)

dist: $(BIN)/nox  ## sdist and wheels, tried, for each Python here and in Debian testing (root only)
	.ci/dist

clean:  ## remove everything that the others made
	rm -rf $(VENV) .nox build dist src/*.egg-info benchmarks/.build
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
