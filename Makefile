# The targets are the CI steps: `.ci/run` calls these and nothing else. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PY := .venv/bin/python
# A worker for each core; the tests of a file share its servers, and so their worker.
PARALLEL := -n $(shell nproc) --dist loadfile
export RAY_USAGE_STATS_ENABLED := 0
# Tests start hundreds of processes; each would compile all that it imports.
export PYTHONDONTWRITEBYTECODE :=
export HF_HUB_OFFLINE := 1

.PHONY: help install check lint types imports unit test monitor-test pictures demo table sim \
  bench-gateway bench-telemetry bench-flags bench-rollback bench-rollout clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install:  ## create .venv with everything that is needed (quick when nothing changed)
	@bash scripts/bootstrap.sh

check: install lint types imports unit  ## lint, types, import rules, unit tests: a minute

lint:
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .

types:
	@.venv/bin/mypy

imports:
	@.venv/bin/lint-imports

unit:
	@.venv/bin/pytest -q $(PARALLEL) tests/unit tests/contract

test: check system-packages  ## every test, real Ray and vLLM included
	.venv/bin/pytest -q $(PARALLEL) tests/conformance tests/integration tests/simulation
	.venv/bin/pytest -q tests/e2e -m e2e --timeout 900

.PHONY: system-packages
system-packages:
	@bash scripts/system-packages.sh

MONITORING_TESTS := test_rules test_dashboards test_compose test_telemetry_registry test_telemetry_exposed \
  test_control_metrics
monitor-test: install system-packages  ## real Prometheus and Alertmanager: every rule, every panel, the second line
	.venv/bin/pytest -q $(MONITORING_TESTS:%=tests/conformance/%.py)
	.venv/bin/pytest -q -s tests/e2e/test_monitoring.py -m e2e --timeout 900

pictures: install system-packages  ## the dashboards of a real run, drawn by Grafana's own components, into docs/pictures
	PENUMBRA_PICTURES=docs/pictures .venv/bin/pytest -q tests/e2e/test_monitoring.py -m e2e --timeout 1800 -k finite

demo: install  ## serve the demo model in four builds, flip flags under load, print a summary
	@$(PY) -m penumbra.serve.demo.run $(if $(DEMO_KEEP),--keep)

table: install  ## measure every demo variant through vLLM: size, speed, exact match per slice
	@$(PY) -m penumbra.serve.demo.table --variants-dir var/demo/variants --json docs/slice-table.json

sim: install  ## simulate the shipped statistics: false alarms, delays (about an hour)
	@OMP_NUM_THREADS=1 $(PY) -m benchmarks.sim --write docs/statistics.md
	@OMP_NUM_THREADS=1 $(PY) -m benchmarks.sim.more_tables
	@OMP_NUM_THREADS=1 $(PY) -m benchmarks.sim.workloads
	@OMP_NUM_THREADS=1 $(PY) -m benchmarks.sim.latency_floors
	@OMP_NUM_THREADS=1 $(PY) -m benchmarks.sim.instrument

bench-gateway: install  ## the gateway beside nginx, LiteLLM and the Rust routers
	@$(PY) -m benchmarks.gateway.run

bench-telemetry: install  ## what metrics cost the gateway: on beside off
	@$(PY) -m benchmarks.gateway.run --targets "penumbra,penumbra without metrics" --rounds 8 --out benchmarks/.build/bench-telemetry.json

bench-flags: install  ## from a durable flag change to the last gateway
	@$(PY) benchmarks/flag_propagation.py

bench-rollback: install  ## from the deciding observation to the last gateway
	@$(PY) benchmarks/rollback_latency.py

bench-rollout: install  ## real engines: a twin and int8 for 2,000 pairs each, int2 stopped ten times
	@$(PY) -m benchmarks.real_rollout

clean:  ## remove what the targets made, .venv excepted
	rm -rf var .penumbra benchmarks/.build .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	  .venvs tests/support/node/node_modules
