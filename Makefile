# SPDX-License-Identifier: AGPL-3.0-or-later
# `make help` lists the targets.

# The Debian suite whose Orthanc `make run` starts, and the suites on which the tests run.
SUITE ?= forky
SUITES ?= forky trixie

DOCKER ?= docker
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' plugin/orthanc_ups/__init__.py)

VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/requirements-dev.installed
export ORTHANC_UPS_SUITES := $(SUITES)

.DEFAULT_GOAL := help
.PHONY: help run demo test lint unit acceptance bench torture fetch programs dist lock image statement pythons fresh clean distclean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 14

run: ## start Orthanc with the plugin and orthanc.json (SUITE=forky or trixie, POSTGRESQL=1); data in .data/
	@python3 tools/run.py --suite $(SUITE) $(if $(POSTGRESQL),--postgresql) orthanc.json

demo: ## run the main use case against the Orthanc of `make run`
	@docker/native.sh python --suite $(SUITE) -m tools.demo

# Three processes on two cores: two wait for a real Orthanc half of the time, while the third computes.
# During the lint, which uses one core, pytest compiles the tests for all three.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(READY) fetch programs ## everything that CI runs
	@$(PYTHON) -m pytest --collect-only -qq > /dev/null & $(MAKE) --no-print-directory lint; status=$$?; wait; exit $$status
	$(PYTHON) -m pytest --numprocesses 3

lint: $(READY) ## style, types, shell scripts
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy
	$(VENV)/bin/shellcheck docker/native.sh .ci/run

unit: $(READY) ## tests that need no Orthanc
	$(PYTHON) -m pytest -m "not real and not torture"

acceptance: $(READY) fetch programs ## tests on a real Orthanc of each suite (SUITES="forky trixie")
	$(PYTHON) -m pytest -m "real and not torture"

bench: $(READY) ## compare speed with floors and with an earlier plugin (PARTS="before size", SIZE=1000000)
	ORTHANC_UPS_BENCH_SIZE=$(SIZE) $(PYTHON) -m tests.bench $(PARTS)

torture: $(READY) fetch programs ## the long forms of the destruction and property tests
	$(PYTHON) -m pytest -m torture
	ORTHANC_UPS_EXAMPLES=20 $(PYTHON) -m pytest -m "hypothesis and not real" --numprocesses 2

fetch: ## download Orthanc for the tests
	@set -e; for suite in $(SUITES); do docker/native.sh fetch --suite $$suite; done

programs: $(READY) ## download what the tests run beside Orthanc and this host lacks: browser, nginx, PostgreSQL, DCMTK
	@$(PYTHON) -m tests.support.programs

dist: $(READY) ## build archive, wheel and their hashes in dist/
	@$(PYTHON) -m tools.dist

lock: $(READY) ## write requirements.lock from requirements.txt
	@$(PYTHON) -m tools.lock

# Podman drops the health check of an image that is not in Docker's format.
image: ## build the image (SUITE=forky or trixie; DOCKER=podman)
	BUILDAH_FORMAT=docker $(DOCKER) build --build-arg SUITE=$(SUITE) --build-arg VERSION=$(VERSION) \
		--build-arg REVISION="$$(git rev-parse HEAD)" --build-arg CREATED="$$(git log -1 --format=%cI)" \
		--tag orthanc-ups:$(VERSION)-$(SUITE) .

statement: $(READY) ## write the tables of the DICOM conformance statement from the code
	@PYTHONPATH=plugin $(PYTHON) -m tools.statement

pythons: $(READY) ## lint, types and unit tests on each installed CPython from 3.11 to 3.14
	@$(PYTHON) -m tools.pythons

fresh: ## follow README in empty Debian machines (needs root and mmdebstrap)
	python3 -m tools.fresh

clean: ## remove the tests' Python, caches and the data of `make run`
	rm -rf $(VENV) .data .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find plugin tests tools -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## remove the downloaded Orthanc too
	docker/native.sh forget

# Uses the pip fetched with Orthanc: a fresh host may have none.
$(READY): requirements.txt requirements-dev.txt
	@echo "Downloading pip and the Python packages of requirements-dev.txt into $(VENV), once"
	python3 -m venv --without-pip $(VENV)
	docker/native.sh pip --suite $(firstword $(SUITES)) $(PYTHON) install --quiet --root-user-action ignore \
		--only-binary=:all: --requirement requirements-dev.txt
	touch $@
