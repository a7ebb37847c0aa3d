# SPDX-License-Identifier: GPL-2.0-only
# ARGS="..." is handed to the program behind run, test, test-fast, matrix, mutants, power, bugs and bench.

.PHONY: help run test test-fast matrix mutants power bugs lint bench setup doctor clean
.DEFAULT_GOAL := help

MUTANTS := tests/mutants/debian-6.12
POWER := tests/mutants/explore-debian-7.3

help:      ## list these targets
	@sed -n 's/^\([a-z-]*\): .*## /\1\t/p' Makefile | expand -t 12

run:       ## set up what is missing, run every program on a kernel and in the model, compare
	@vm-images/setup.sh
	@.venv/bin/hmm-harness run $(ARGS)

test:      ## set up what is missing, run all tests, those that need a VM too
	@vm-images/setup.sh dev
	@.venv/bin/pytest $(ARGS)

test-fast: ## run the tests that need no VM
	@vm-images/setup.sh dev
	@.venv/bin/pytest -m "not vm and not matrix" $(ARGS)

matrix:    ## run the tests that build kernels in other flavours, which takes up to an hour the first time
	@vm-images/setup.sh dev
	@.venv/bin/pytest -m matrix $(ARGS)

mutants:   ## put each bug of tests/mutants/ into the kernel, and see who notices; ARGS=--resume goes on where it ended
	@vm-images/setup.sh dev
	@.venv/bin/hmm-harness mutate --kernel debian:6.12 --peer --json results/mutants --table $(MUTANTS)/README.md \
		$(MUTANTS) $(ARGS)

power:     ## see how soon exploring finds each bug of tests/mutants/explore-*, hours; ARGS=--resume goes on where it ended
	@vm-images/setup.sh dev
	@.venv/bin/hmm-harness power --kernel debian:7.3 --json results/power --table $(POWER)/README.md $(POWER) $(ARGS)

bugs:      ## check that programs tell kernels with known bugs from mended ones; builds kernels, minutes each
	@vm-images/setup.sh
	@.venv/bin/hmm-harness bugs --check $(ARGS)

lint:      ## check style and types of the Python, style and annotations of the C
	@vm-images/setup.sh dev
	@.ci/lint

bench:     ## measure boot, restore, round trip and operations per second
	@vm-images/setup.sh bench
	@.venv/bin/hmm-harness bench $(ARGS)

setup:     ## install Debian packages and make .venv/
	@vm-images/setup.sh

doctor:    ## say what is missing on this machine, and the command that fixes it
	@PATH="$$PWD/.venv/bin:$$PATH" python3 -m harness.target.doctor

clean:     ## remove .venv/ and all that is cached: kernels, images, saved VMs
	@if [ -x .venv/bin/hmm-harness ]; then .venv/bin/hmm-harness clean; fi
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .lint_cache *.egg-info
