# All tasks of this repository. Plain `make` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SERVICES := relay host-agent client-agent
SOURCES := tunnel-core/src relay/src host-agent/src client-agent/src

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-kill bench wheel test test-sealed sealed test-faults test-long attack soak test-browser test-install test-containers test-k8s fuzz sbom audit \
	lint lint-code lint-deploy format requirements clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

## Setup: the commands and their dependencies, or also those of tests and checks.

setup: $(VENV)/commands ## make .venv with the commands relay, host-agent and client-agent

# Recreate the virtual environment if another Python is requested.
$(VENV)/python: FORCE
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed: make PYTHON=python3.13 $(MAKECMDGOALS)"; exit 1; }
	@version=$$($(PYTHON) -c 'import sys; print(sys.version)'); \
	if [ "$$version" != "$$(cat $@ 2>/dev/null)" ] || ! [ -x $(BIN)/python ]; then \
		rm -rf $(VENV) && $(PYTHON) -m venv $(VENV) && echo "$$version" > $@; fi
FORCE:

$(VENV)/commands: $(VENV)/python pyproject.toml relay/requirements.txt requirements-build.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r relay/requirements.txt -r requirements-build.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/tools: $(VENV)/commands requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

## Use.

demo: $(VENV)/commands ## run a complete tunnel on this machine with real traffic (ONCE=1: then stop)
	@$(BIN)/python -m demo $(if $(ONCE),--once)

demo-kill: $(VENV)/commands ## a transfer that survives kill -9 of the relay, repeatedly
	@$(BIN)/python -m demo.kill

bench: $(VENV)/commands ## compare with other tunnels; updates docs/benchmarks.md (QUICK=1: a quick look; FULL=1: everything)
	@BENCH_COMMAND="make bench$(if $(FULL), FULL=1)$(if $(QUICK), QUICK=1)" \
		$(BIN)/python -m bench $(if $(QUICK),--quick,--write) $(if $(FULL),--full)

# Where a relay of this checkout looks for the wheel; the images use the same path.
WHEEL := $(VENV)/share/tcp-ws-tunnel

wheel: $(VENV)/commands ## build the wheel that a relay of this checkout serves to friends (docs/join.md)
	rm -rf $(WHEEL)
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir $(WHEEL) .

## Checks.

# Tests that judge shares of a machine, or what a peer costs others, have it to themselves.
test: $(VENV)/tools ## run the tests
	$(BIN)/python -m pytest -n auto --dist worksteal --ignore tests/hostile
	$(BIN)/python -m pytest tests/hostile

# Sealed tunnels need Python 3.13, which need not be the Python of the rest: an environment of their own.
FIND_PSK = for python in $(PYTHON) python3.13 python3.14 \
	$$(ls -d "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.1[3-9]*/bin/python3 2>/dev/null); do \
	$$python -c 'import ssl, sys; sys.exit(not getattr(ssl, "HAS_PSK", False))' 2>/dev/null && echo $$python && break; done

test-sealed: ## run the tests of sealed tunnels (needs Python 3.13: python3.13, or pyenv's; MUTATIONS=100000: long)
	@python=$$($(FIND_PSK)); if [ -n "$$python" ]; then $(MAKE) VENV=.venv-sealed PYTHON=$$python sealed; else \
		echo "*** NOT TESTED, as there is no Python 3.13 here: sealed tunnels ***" >&2; fi

sealed: $(VENV)/tools
	MUTATIONS=$(MUTATIONS) $(BIN)/python -m pytest tests/sealed -m sealed $(if $(MUTATIONS),--timeout 7200)

# What tries inputs made at random.
RANDOM := tests/unit/protocol tests/unit/client tests/hostile/test_garbage.py

test-faults: $(VENV)/tools ## kill, cut and freeze real processes while they carry (20 minutes)
	$(BIN)/python -m pytest tests/faults -m faults -s
	PYTHONASYNCIODEBUG=1 $(BIN)/python -m pytest --tx '2*popen//python=$(BIN)/python -X dev -W error' --dist worksteal tests/system
	HYPOTHESIS_PROFILE=more $(BIN)/python -m pytest -n auto --dist worksteal $(RANDOM) --timeout 1200

test-long: $(VENV)/tools ## more of what is made at random: state machines, parsers, hostile peers (an hour)
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest -n auto --dist worksteal $(RANDOM) --timeout 3600
	$(MAKE) test-sealed MUTATIONS=100000

# Seconds of it; before and after them it takes up to five minutes. `make test-faults` has a minute of it.
ATTACK ?= 600

attack: $(VENV)/tools ## every known attack at once, beside honest streams (ATTACK=60: seconds); docs/security.md
	ATTACK=$(ATTACK) $(BIN)/python -m pytest tests/faults/test_attack.py -m faults -s

# Seconds of faults, plus up to five minutes until everything is idle again.
SOAK ?= 600

soak: $(VENV)/tools ## 50 streams under random faults: is anything lost or leaked? (SOAK=3600: seconds)
	PYTHONPATH=.:tests $(BIN)/python -m soak --seconds $(SOAK)

# Seconds of each of the three fuzzers.
FUZZ ?= 60

fuzz: $(VENV)/tools requirements-fuzz.txt ## look for inputs that break what reads strangers' bytes (FUZZ=900: seconds of each)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-fuzz.txt
	mkdir -p build/fuzz/frames build/fuzz/messages build/fuzz/sniff
	$(BIN)/python -m fuzz.frames build/fuzz/frames fuzz/corpus/frames -max_total_time=$(FUZZ) -max_len=4096 -artifact_prefix=build/fuzz/
	$(BIN)/python -m fuzz.messages build/fuzz/messages fuzz/corpus/messages -keep_seed=1 -max_total_time=$(FUZZ) -artifact_prefix=build/fuzz/
	$(BIN)/python -m fuzz.sniff build/fuzz/sniff fuzz/corpus/sniff -max_total_time=$(FUZZ) -max_len=4200 -artifact_prefix=build/fuzz/

sbom: requirements-security.txt $(VENV)/tools ## write a CycloneDX bill of materials for each service to build/sbom/
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-security.txt
	mkdir -p build/sbom
	for service in $(SERVICES); do $(BIN)/cyclonedx-py requirements $$service/requirements.txt -o build/sbom/$$service.json || exit 1; done

audit: requirements-security.txt $(VENV)/tools ## check pinned dependencies for known vulnerabilities (needs internet access)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-security.txt
	for service in $(SERVICES); do $(BIN)/pip-audit --require-hashes --disable-pip -r $$service/requirements.txt || exit 1; done

test-browser: $(VENV)/tools ## test the relay's pages in a real browser (needs Chromium; half a minute)
	$(BIN)/python -m pytest tests/browser -m browser

test-install: $(VENV)/tools ## from nothing to connected with uvx and with pip (needs the package index; two minutes)
	$(BIN)/python -m pytest tests/install -m install -s

test-containers: $(VENV)/tools ## build the images, run compose and the docker run lines, kill the relay (needs a Docker engine)
	$(BIN)/python -m pytest tests/e2e -m containers -s

test-k8s: $(VENV)/tools ## apply k8s/overlays/dev and replace the relay during a transfer (needs a cluster: KUBECTL)
	$(BIN)/python -m pytest tests/e2e -m cluster -s

lint: lint-code lint-deploy ## check style, types, layers and deployment files

lint-code: $(VENV)/tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(SOURCES) tests demo bench
	$(BIN)/lint-imports --no-cache

# $(call with,PROGRAM,COMMAND): run COMMAND. Without PROGRAM, warn loudly, and fail in CI.
with = @if $(1) >/dev/null 2>&1; then echo "$(2)"; $(2) >/dev/null; else \
	echo "*** NOT CHECKED, as '$(1)' does not work here: $(2) ***" >&2; [ "$$CI" != true ]; fi

lint-deploy: $(VENV)/tools
	$(BIN)/hadolint $(SERVICES:%=%/Dockerfile)
	$(BIN)/yamllint --strict docker-compose.yml demo k8s observability revoked/kustomization.yaml
	$(BIN)/python -c 'import sys, tomllib; [tomllib.load(open(path, "rb")) for path in sys.argv[1:]]' fly.toml fly.gateway.toml pyproject.toml
	$(call with,docker compose version,docker compose --profile '*' config --quiet)
	$(call with,kubectl version --client,kubectl kustomize k8s/overlays/dev)
	$(call with,kubectl version --client,kubectl kustomize k8s/overlays/production)
	$(call with,kubectl version --client,kubectl kustomize k8s/overlays/production-full)
	$(call with,kubectl version --client,kubectl kustomize k8s/overlays/public)
	$(call with,kubectl version --client,kubectl kustomize k8s/examples/minecraft)
	$(call with,promtool --version,promtool check config observability/prometheus.yml)
	$(call with,promtool --version,promtool test rules observability/alerts_test.yml)

format: $(VENV)/tools ## format the sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

## Upkeep.

UV_COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command "make requirements"

requirements: $(VENV)/tools ## pin all dependencies with hashes (UPGRADE=1: to their newest versions)
	for service in $(SERVICES); do $(UV_COMPILE) $(if $(UPGRADE),--upgrade) pyproject.toml \
		$$([ $$service != relay ] || echo --extra relay) -o $$service/requirements.txt || exit 1; done
	for group in build dev fuzz security deploy; do \
		$(UV_COMPILE) $(if $(UPGRADE),--upgrade) --group $$group -c relay/requirements.txt -o requirements-$$group.txt || exit 1; done

clean: ## remove generated files
	rm -rf $(VENV) .venv-sealed build .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
