# One command each: `make restore`, `make test`, `make check`. `make help` lists them.
PYTHON ?= python3.11
VENV ?= .venv
# Extra arguments for pip, such as --find-links FOLDER for machines without a network.
PIP_ARGS ?=
SOURCE ?=
DEST ?= restored
# Any options of `lacuna restore`, such as OPTIONS="--correct-colour --device cuda".
OPTIONS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.lacuna-installed

# Bytecode halves the start of the workflow engine's embedded server, so it is written whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install restore sample test check lint format train-next deploy worker benchmark-overhead benchmark-memory clean distclean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

install: $(STAMP) ## the virtual environment with everything in it

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q $(PIP_ARGS) "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(BIN)/python -m pip install -q $(PIP_ARGS) -c constraints.txt -e ".[dev]"
	@# The engine's database takes 8 s to make; the first run must not wait for that.
	@$(BIN)/python -m flows.engine_database
	@touch $@

restore: $(STAMP) ## restore SOURCE to DEST; without SOURCE: build the sample archive and restore that
ifeq ($(strip $(SOURCE)),)
	$(BIN)/lacuna sample sample
	@# One file of the sample is corrupt on purpose: exit code 1, some images failed, is what must come out.
	$(BIN)/lacuna restore sample/originals $(DEST) --correct-colour --reference sample/reference $(OPTIONS) || test $$? -eq 1
else
	$(BIN)/lacuna restore "$(SOURCE)" "$(DEST)" $(OPTIONS)
endif

sample: $(STAMP) ## build the sample archive only
	$(BIN)/lacuna sample sample

test: $(STAMP) ## the default tests: offline, a few minutes on two cores
	@# One thread a process: two processes of two threads each wait for one another on two cores.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: $(STAMP) ## style, types and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test ## everything a change must pass

format: $(STAMP) ## put the code into the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

train-next: $(STAMP) ## train the first weight below its target, in RUN/<recipe>: DATA="folders of photographs" RUN=folder [OPTIONS]
	$(BIN)/lacuna train $(foreach folder,$(DATA),--data "$(folder)") --out "$(RUN)" --minutes 8 $(OPTIONS)

deploy: $(STAMP) ## register the flows with the server that PREFECT_API_URL names
	PATH="$(abspath $(BIN)):$$PATH" LACUNA_CHECKOUT="$(CURDIR)" deployments/worker.sh register

worker: $(STAMP) ## run what that server schedules on this machine, one run at a time
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/prefect worker start --pool lacuna --type process --limit 1

benchmark-overhead: $(STAMP) ## wall time of the flow over a bare loop of the same work
	$(BIN)/python -m benchmarks.overhead

benchmark-memory: $(STAMP) ## peak memory on a 100-megapixel TIFF
	$(BIN)/python -m benchmarks.overhead --large

clean: ## remove results of `make restore` and caches of the tools, not the virtual environment
	rm -rf sample restored build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

distclean: clean ## also remove the virtual environment
	rm -rf $(VENV) *.egg-info

.PHONY: s3 s3-stop test-s3 test-s3-kills benchmark-s3

s3: ## install (Debian, root) and start a real S3 server on loopback; prints where its endpoint and keys are
	@deployments/s3/server.sh start

s3-stop: ## stop it; what it holds stays (`deployments/s3/server.sh remove` deletes it)
	@deployments/s3/server.sh stop

test-s3: $(STAMP) ## the storage tests on the S3 server, which is started if it does not run
	$(BIN)/python -m pytest -m "s3 and not slow" -rs tests/s3

test-s3-kills: $(STAMP) ## kill -9 of flow, worker and S3 server, and scheduled nights, on that server (an hour)
	$(BIN)/python -m pytest -m "s3 and slow" -rs tests/s3

benchmark-s3: $(STAMP) ## small pictures from S3 to S3 against the same from disk to disk
	$(BIN)/python -m benchmarks.s3_throughput
