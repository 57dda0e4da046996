# make run     sets up, starts Vecgate with its own Weaviate and the bundled model, imports pictures, searches, serves
# make test    sets up and runs all tests
# make check   formats, lint, types, import contracts, API

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
SOURCES := embedders service protos tests helm
PYTEST_ARGS ?=
VERSIONS ?= 1.38.x 1.39.x
BUNDLE_ARGS ?=
TARGET ?= gateway
GPU_PYTHON ?= $(firstword $(wildcard $(VENV)/bin/python) python3)
GPU_CHECK_ARGS ?=
GPU_ARCHIVE_ARGS ?=
# Named, because uv would rather take an environment that the caller has activated.
INSTALL = $(BIN)/uv pip install --quiet --python $(BIN)/python
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-emit-package vecgate-client --generate-hashes
EXPLORER = service/web/explorer
EXPLORER_PACKAGES = $(EXPLORER)/node_modules/.installed
# tsc checks, and esbuild bundles what it has checked; the folder is relative to the explorer's.
BUILD_EXPLORER = cd $(EXPLORER) && PATH="$(abspath $(BIN)):$$PATH" && npm run --silent generate && npm run --silent types && npm run --silent bundle -- --outdir
PEERS = tests/bench/peers
COMPILE_PEER = $(BIN)/uv pip compile --quiet --python-version 3.11 --no-emit-index-url --generate-hashes

.DEFAULT_GOAL := help
.PHONY: help setup helm chromium run test test-weaviate bundle image-test cluster-test check fmt lint type imports protos docs docs-check protos-check protos-release explorer explorer-check lock weaviate bench gpu-check gpu-archive model clean clean-data

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.installed ## install everything into .venv

$(VENV)/.installed: requirements-dev.txt pyproject.toml protos/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Vecgate needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V 2>&1); try make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); }
	$(INSTALL) --require-hashes --requirement requirements-dev.txt
	$(INSTALL) --no-deps --no-build-isolation --editable protos --editable .
	@touch $@

weaviate: setup ## get the Weaviate server for the demo and the tests (built once, then cached)
	@$(BIN)/vecgate weaviate install

helm: setup ## get the helm programs and Prometheus for the tests of the chart (once, then cached)
	@$(BIN)/python -m helm.tools.helm
	@$(BIN)/python -m helm.tools.prometheus

chromium: setup ## find the browser for the tests of the explorer; as root on Debian, install it where there is none
	@$(BIN)/python -m tests.explorer.chromium

run: setup weaviate ## run everything on this machine and show a search
	@exec $(BIN)/vecgate demo tests/data/pictures

test: setup weaviate helm $(if $(findstring not browser,$(PYTEST_ARGS)),,chromium) ## run all tests, in two processes; PYTEST_ARGS="tests/embedders -k name" for some
	$(BIN)/pytest --numprocesses 2 --durations 10 $(PYTEST_ARGS)

test-weaviate: setup ## run the tests with a real Weaviate for several of its versions; VERSIONS="1.38.x 1.39.3"
	PYTEST_ARGS="$(or $(PYTEST_ARGS),tests/e2e)" $(BIN)/python -m tests.weaviate_versions $(VERSIONS)

bundle: setup ## one archive for a site behind an air gap; BUNDLE_ARGS="--image gateway.tar --weights model.safetensors"
	$(BIN)/python helm/bundle.py --helm "$$($(BIN)/python -m helm.tools.helm | sed -n 1p)" $(BUNDLE_ARGS)

image-test: setup $(if $(filter bulk,$(TARGET)),weaviate) ## build an image and run it strictly confined, TARGET=gateway, clip or bulk; needs root, buildah, iproute2, mmdebstrap, runc
	$(BIN)/python -m tests.image $(TARGET)

cluster-test: setup helm ## install the chart on a real API server of Kubernetes; needs Go, and 10 minutes or more the first time
	$(BIN)/pytest tests/cluster --override-ini "python_files=check_*.py" --timeout 900 $(PYTEST_ARGS)

check: setup lint type imports protos-check explorer-check docs-check ## everything that is checked without running the code

fmt: setup ## format the code
	$(BIN)/ruff check --select I --fix --quiet $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

lint: setup ## format and lint, as a check
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/hadolint Dockerfile

type: setup ## types
	$(BIN)/mypy

imports: setup ## import contracts
	$(BIN)/lint-imports

protos: setup ## generate the stubs from the .proto files
	$(BIN)/python protos/generate.py

protos-check: setup ## stubs fresh, API linted, and compatible with its baseline
	$(BIN)/python protos/generate.py --check
	$(BIN)/buf lint protos
	@mkdir -p build
	@$(BIN)/buf build protos --output build/api.binpb
	$(BIN)/buf breaking build/api.binpb --against protos/released.binpb --config protos/buf.yaml

protos-release: setup ## record the current API as the baseline of the compatibility check
	$(BIN)/buf build protos --exclude-source-info --output protos/released.binpb

$(EXPLORER_PACKAGES): $(EXPLORER)/package-lock.json
	@command -v node >/dev/null && command -v npm >/dev/null || { echo "the explorer is built with Node.js 20 or newer and npm; install them" >&2; exit 1; }
	cd $(EXPLORER) && npm ci --ignore-scripts --no-audit --no-fund --prefer-offline
	@touch $@

explorer: setup $(EXPLORER_PACKAGES) ## build the explorer, the page for browsers
	rm -f $(EXPLORER)/static/*
	$(BUILD_EXPLORER)=static

explorer-check: setup $(EXPLORER_PACKAGES) ## whether the explorer's built files are fresh
	rm -rf build/explorer
	$(BUILD_EXPLORER)=../../../build/explorer
	@diff --recursive --brief build/explorer $(EXPLORER)/static || { echo "$(EXPLORER)/static is old: run make explorer" >&2; exit 1; }

docs: setup ## write settings, metrics and values into the pages and the chart's schema
	$(BIN)/python -m service.settings.table
	$(BIN)/python -m service.process.metrics_table
	$(BIN)/python -m helm.tools.generate

docs-check: setup ## whether what make docs writes is fresh
	$(BIN)/python -m helm.tools.generate --check
	$(BIN)/pytest --quiet -k fresh tests/architecture/test_docs.py

lock: setup ## resolve the dependencies anew
	$(COMPILE) --upgrade --extra dev --output-file requirements-dev.txt pyproject.toml
	$(COMPILE) --extra model --constraint requirements-dev.txt --output-file requirements-model.txt pyproject.toml
	$(COMPILE) --extra server --constraint requirements-dev.txt --output-file requirements-gateway.txt pyproject.toml
	$(COMPILE) --extra server --extra clip --constraint requirements-dev.txt --output-file requirements-clip.txt pyproject.toml
	$(COMPILE) --extra bulk --extra clip --constraint requirements-dev.txt --output-file requirements-bulk.txt pyproject.toml
	$(COMPILE) --group image --output-file requirements-image.txt
	$(COMPILE) --group clients --output-file requirements-clients.txt
	$(COMPILE_PEER) --output-file $(PEERS)/requirements-infinity.txt $(PEERS)/infinity.in
	$(COMPILE_PEER) --override $(PEERS)/clip-server-override.in --output-file $(PEERS)/requirements-clip-server.txt $(PEERS)/clip-server.in

bench: setup weaviate ## run the benchmarks
	$(BIN)/python -m tests.bench $(BENCH)

gpu-check: ## run the tests marked gpu and measure on a machine with a GPU, in 8 minutes; GPU_PYTHON is a Python that has torch
	$(GPU_PYTHON) tests/gpu_check/start.py $(GPU_CHECK_ARGS)

gpu-archive: setup ## all that gpu-check needs on a machine without a network; GPU_ARCHIVE_ARGS="--python 3.12 --with-torch"
	$(BIN)/python tests/gpu_check/archive.py $(GPU_ARCHIVE_ARGS)

model: setup ## train the bundled model anew
	$(INSTALL) --require-hashes --requirement requirements-model.txt
	$(BIN)/python embedders/models/pictogram-clip/recipe/train.py

clean: ## remove the virtual environment and everything built
	rm -rf $(EXPLORER)/generated $(EXPLORER)/node_modules
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

clean-data: setup ## remove what make run has stored
	@$(BIN)/vecgate weaviate clear
