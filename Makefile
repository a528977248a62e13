# Two commands to begin with: `make demo` and `make test`. Each sets up what it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
SOURCES := stillframe drivers topology orchestrator sim scenarios reports explorer lab certify tests benchmarks scripts

.PHONY: help demo lab-packages test check bench pictures format clean

help:  ## show this list
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

.venv/.run: pyproject.toml scripts/setup-venv.sh
	@scripts/setup-venv.sh
	@touch $@

.venv/.dev: pyproject.toml scripts/setup-venv.sh scripts/install-system.sh
	@scripts/setup-venv.sh dev,vsphere,qemu
	@scripts/install-system.sh $(BIN)/python
	@touch .venv/.run $@

demo: .venv/.run  ## run the demo scenario and say where its report is
	@$(BIN)/stillframe run demo --out out/demo

lab-packages:
	@scripts/install-lab.sh

test: .venv/.dev lab-packages  ## run all tests
	@scripts/build-vsim.sh >/dev/null || [ "$$CI" != true ]
	@$(BIN)/python -m pytest --benchmark-disable

check: .venv/.dev  ## lint, format, types, import rules
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)
	@scripts/check-installed.sh

bench: .venv/.dev  ## benchmarks (compare them within one run only)
	@$(BIN)/python -m pytest benchmarks --benchmark-only --benchmark-columns=min,median,rounds

evidence-%: .venv/.dev  ## measure a topic: ablation, canaries, certificates, crash, determinism, fidelity, journal, lab, scale, throughput, trace, validation, vendor, vsphere
	@$(BIN)/python -m benchmarks.evidence_$*

evidence-lab evidence-validation evidence-certificates: lab-packages

pictures: demo  ## renew the pictures that the documents show
	@for name in windows topology quiesce-ecdf; do cp out/demo/figures/$$name.png docs/images/demo-$$name.png; done
	@$(BIN)/python -m benchmarks.evidence_trace --pictures docs/images

format: .venv/.dev  ## format the sources and fix what can be fixed
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

clean:  ## remove what the targets above made
	@rm -rf .venv build out *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
