# `make` lists the targets. Everything runs from .venv, which the first target that needs it creates.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export VENV ?= .venv
# Otherwise each process that a target starts would compile all its modules.
unexport PYTHONDONTWRITEBYTECODE
PY := $(VENV)/bin/python
ARGS ?=
CMD ?=
ONCE ?=
BENCH ?= append tail catchup recovery khala_fanout khala_deflate khala_connect khala_stuck gateways gateway_roll dispatch \
  takeover worker_stream attached steps revocation edge sign_in_timing routes sizing

.PHONY: help run test gate fuzz busy pauses order kills soak companies roll conformance autobahn bench sim mutations lint proto-check gen fmt lock compiled-tests audit-dependencies images images-test k8s-check cluster-api baseline bootstrap codex typescript clean distclean

help: ## list the targets
	@printf 'OpenAgents Runtime\n\n'
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "  make %-18s %s\n", $$1, $$2}'
	@printf '\nVariables: PYTHON=interpreter for a new .venv · ARGS="…" for pytest, sim, mutations, order, kills, roll, bench\n'

# The command is passed on as given: a dollar sign in it is for the shell, not for make. The stack is this checkout's,
# also below a folder that has one.
run: export COMMAND := $(value CMD)
run: export OA_HOME ?= .oa
run: bootstrap ## start the whole stack and show one real run (ONCE=1: then exit; CMD='…': a line of sh to run instead)
	@$(VENV)/bin/oa demo $(if $(ONCE),--once) $(ARGS) $(if $(value CMD),-- sh -c "$$COMMAND")

test: ## every check: contracts, lint, all tests (ARGS="-k name" picks tests)
	@$(MAKE) -j2 proto-check lint compiled-tests
	@if ! command -v npm >/dev/null; then echo "no npm here: tests that drive a real Codex are skipped"; \
	elif ! $(MAKE) --no-print-directory codex; then echo "Codex can't be installed: tests that drive it are skipped"; fi
	@if [ ! -e $(TYPESCRIPT) ]; then echo "the TypeScript client is not installed: its tests are skipped"; fi
	@tools/run_tests.sh $(ARGS)

gate: export NO_SKIPS := 1
gate: export LONG_FORMS := 1
gate: test conformance autobahn images-test ## every check that a release must pass, none skipped for a missing tool

busy: bootstrap ## `make test` beside busy loops, to find tests that need a fast machine (ARGS="3 4 -k name": 3 times, 4 loops)
	@tools/run_busy.sh $(ARGS)

fuzz: export LONG_FORMS := 1
fuzz: bootstrap ## every method asked wrongly, and random programs, in their long form (ARGS="-k schemathesis")
	@$(PY) -m pytest -q -rs tests/fuzz services/runtime/tests/test_random_runs.py $(ARGS)

pauses: bootstrap ## the tests, with all their processes paused for about a second now and then (ARGS="-k name"; SEED=2)
	@$(PY) -m tools.pauses --seed $(or $(SEED),1) -- tools/run_tests.sh $(ARGS)

sim: bootstrap ## seeded schedules of Khala on virtual time (ARGS="--seeds 1000000 --from 0")
	@$(PY) -m tests.simulation $(ARGS)

mutations: bootstrap ## defects planted in the core of delivery, and what catches each (ARGS="skip_holes --seeds 1000")
	@$(PY) -m tests.mutations $(ARGS)

order: bootstrap ## the order test in its long form: 10^6 appends, killed connections (ARGS="--seed 7")
	@$(PY) -m tests.order --appends 1000000 --writers 256 $(ARGS)

kills: bootstrap ## the kill test in its long form: kill -9 of a runtime, 200 times (ARGS="--seed 7 --kills 1000")
	@$(PY) -m tests.kills $(ARGS)

soak: bootstrap ## a whole stack in use for an hour: exact, proved, and nothing grows (ARGS="--minutes 5 --kill-every-s 90")
	@$(PY) -m tests.soak $(ARGS)

companies: bootstrap ## random calls of people in orgs, checked against a model (ARGS="--worlds 5000 --seed 7")
	@$(PY) -m tests.companies $(ARGS)

roll: bootstrap ## rolls of the Kubernetes manifests in their long form, under load (ARGS="--rolls 20 --followers 50")
	@$(PY) -m tests.deploy.cluster $(ARGS)

conformance: bootstrap ## Connect's conformance suite against the edge (needs Go; ARGS="-v")
	@PY=$(PY) tools/run_conformance.sh $(ARGS)

autobahn: bootstrap ## Autobahn's cases against the gateway's sockets (ARGS="7.1.* 9.1.*" picks)
	@$(PY) -m tests.autobahn $(ARGS)

bench: bootstrap ## every benchmark, each beside its peers or floor (BENCH="append tail" picks; ARGS go to each)
	@for name in $(BENCH); do $(PY) -m benchmarks.$$name $(ARGS); done

k8s-check: bootstrap ## the Kubernetes manifests: rendered, and checked against Kubernetes and the code
	@$(PY) -m pytest -q tests/deploy/test_manifests.py tests/deploy/test_worker.py tests/deploy/test_autoscaling.py $(ARGS)

cluster-api: bootstrap ## the manifests and their pages on a real control plane (needs Go; builds Kubernetes once: minutes to an hour)
	@$(PY) -m pytest -q -rs tests/deploy/cluster_api/checks.py $(ARGS)

lint: bootstrap ## ruff, mypy --strict, the import rules
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-logo

proto-check: bootstrap ## buf lint, breaking changes against the baseline, generated files up to date
	@if command -v npm >/dev/null; then $(MAKE) --silent $(TYPESCRIPT) || true; fi
	@$(PY) -m tools.proto_check

gen: bootstrap ## generate gen/ and the TypeScript messages from proto/, and the documents made from code
	@$(PY) -m tools.gen
	@$(PY) -m tools.gen_docs

fmt: bootstrap ## let ruff format and fix what it can
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .
	@if [ -e $(TYPESCRIPT) ]; then npm run --silent --prefix clients/typescript format; fi

lock: bootstrap ## write requirements/*.lock from pyproject.toml (ARGS=--upgrade moves versions)
	@tools/lock.sh $(ARGS)

# Strict: a package that the database does not know, or does not answer about, is a failure and not a pass.
audit-dependencies: bootstrap ## ask PyPI for known vulnerabilities of every pinned package (needs the network; ARGS)
	@$(VENV)/bin/uv tool run --quiet --from pip-audit==2.10.1 pip-audit --strict --require-hashes --disable-pip \
	    --requirement requirements/dev.lock $(ARGS)

images: bootstrap ## build the container images (ARGS="runtime worker" picks, ARGS=--fresh-base makes the base anew)
	@$(PY) -m tools.images $(ARGS)

images-test: bootstrap ## build all images, look into each, and run the whole system from them
	@$(PY) -m tests.deploy.images

baseline: bootstrap ## releases only: make today's contracts the ones that `breaking` compares with
	@$(VENV)/bin/buf build proto --exclude-source-info --output proto/baseline/v1.binpb
	@printf 'proto/baseline/v1.binpb moved: say so in CHANGELOG.md\n'

bootstrap: ## create or update .venv from the lock
	@tools/bootstrap.sh

# Otherwise each of the tests' workers would compile all tests of a new checkout, which takes twice as long as to load
# them compiled. What is wrong with them the workers say.
COMPILED = .pytest_cache/compiled
compiled-tests: bootstrap ## compile the tests of a new checkout, once for all workers
	@if [ ! -e $(COMPILED) ]; then \
	  mkdir -p .pytest_cache; touch $(COMPILED); $(PY) -m pytest --collect-only -qq >/dev/null 2>&1 || true; fi

CODEX = tools/codex/node_modules/.package-lock.json
codex: $(CODEX) ## install the Codex that the tests drive, as its lock says (needs npm; its tests are skipped without it)
$(CODEX): tools/codex/package-lock.json
	@npm ci --prefix tools/codex --omit=dev --no-audit --no-fund --loglevel=error
	@touch $@

TYPESCRIPT = clients/typescript/node_modules/.package-lock.json
typescript: bootstrap $(TYPESCRIPT) ## the TypeScript client: compiled, checked against the Python one, a gateway, Chromium (needs npm)
	@$(PY) -m pytest -q -rs tests/typescript $(ARGS)
$(TYPESCRIPT): clients/typescript/package-lock.json
	@command -v npm >/dev/null || { echo "no npm here; install it for the TypeScript client" >&2; exit 1; }
	@npm ci --prefix clients/typescript --no-audit --no-fund --loglevel=error
	@touch $@

# A stack's data may lie elsewhere, and only our program knows where. Without a stack, no environment is needed.
clean: ## remove the stack's data and all caches
	@if [ -e "$${OA_HOME:-.oa}" ]; then tools/bootstrap.sh; $(PY) -m oa_localstack clean; fi
	@rm -rf .oa .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist \
	  clients/typescript/build clients/typescript/dist
	@find . -path ./$(VENV) -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## clean, and remove everything that was installed
	@rm -rf $(VENV) tools/codex/node_modules clients/typescript/node_modules
