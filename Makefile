# Everything a person does with this checkout. `make` alone lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Tests never share hosts with the demo: each scenario has its own lab.
# Longest first, so that two at a time end at about the same time.
SCENARIOS := fleet redos ubuntu astra

.PHONY: help
help: ## list what can be done
	@awk -F':.*## ' '/^[a-zA-Z_-]+:.*## / {printf "  make %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## the lab, site.yml, real studies, the fleet view; safe to repeat
	@command -v python3 >/dev/null || lab/bootstrap # a bare machine has no Python to run the demo with
	@lab/demo

.PHONY: demo-down
demo-down: ## remove all of the demo: hosts, networks, volumes, keys
	@lab/demo --down

.PHONY: test
test: setup lint test-python release test-hosts ## prove everything
	@echo "make test: all passed"

.PHONY: setup
setup: ## install what is missing on this machine
	@lab/bootstrap --tests
	@$(MAKE) --silent .venv/tests.stamp

# A machine that only runs playbooks needs no lab: python3 (3.11 or newer), its venv module, git and make.
.PHONY: controller
controller: .venv/controller.stamp ## install what runs playbooks (ansible-playbook, outpost) into .venv
	@echo 'In each new shell: eval "$$(make -s path)"'

.PHONY: path
path: ## print the line that puts ansible-playbook and outpost on the PATH: eval "$(make -s path)"
	@echo 'export PATH="$(CURDIR)/.venv/bin:$$PATH"'

# What tests hold to its source. After a change of codes, options, commands or variables.
.PHONY: pages
pages: export PYTHONPATH := $(CURDIR)/service
pages: .venv/tests.stamp ## write every page and file of docs/ and roles/ that is made from the code
	@for language in en ru; do \
		suffix=$$([ $$language = en ] || echo .ru); \
		python -m outpost.reasons $$language > docs/reason-codes$$suffix.md && \
		python -m outpost.codes.notes_page $$language > docs/result-notes$$suffix.md && \
		python -m outpost.health $$language > docs/health-codes$$suffix.md && \
		python -m outpost.codes.event_texts $$language > docs/event-codes$$suffix.md && \
		python -m outpost.codes.driver $$language > docs/driver-codes$$suffix.md && \
		python -m outpost.codes.run $$language > docs/run-codes$$suffix.md && \
		python -m outpost.controller.inventory $$language > docs/inventory-codes$$suffix.md && \
		python -m outpost.platform codes --language $$language > docs/preflight$$suffix.md || exit 1; \
	done
	@python -m outpost.filter > docs/filter-rules.md
	@python -m outpost.completion > roles/inference/files/outpost-completion.bash
	@lab/make-variables > docs/variables.md

.PHONY: bootstrap
bootstrap:
	@lab/bootstrap

# The controller: what runs playbooks and the demo. The tests add the service's own libraries.
.venv/controller.stamp: requirements-controller.txt
	@lab/make-venv controller
.venv/tests.stamp: .venv/controller.stamp requirements-dev.txt requirements-dev-nodeps.txt service/requirements.txt service/requirements-nodeps.txt pyproject.toml
	@lab/make-venv tests

# Runs a part and keeps how long it took, for `make test-times`.
TIMED := .venv/bin/python tests/lanes/times.py run

.PHONY: lint lint-each
lint: .venv/tests.stamp ## ruff, mypy, yamllint, ansible-lint at profile production, units by systemd-analyze
	@$(TIMED) lint $(MAKE) --no-print-directory lint-each
lint-each:
	ruff check .
	ruff format --check .
	mypy
	yamllint --strict .
	ansible-lint --offline -q
	lab/unit-security

# Half of the service's tests is waiting for peers and timers: two halves of the same length run side by side.
# docs/testing.md has the minutes of each part, by which the halves are made.
.PHONY: test-python
test-python: .venv/tests.stamp ## unit, service, fault and role tests, with real peers
	@$(MAKE) --output-sync=line --jobs=2 test-service-unit test-faults-roles

.PHONY: test-unit test-service test-faults test-roles test-service-unit test-faults-roles
test-unit: .venv/tests.stamp ## unit tests
	$(TIMED) unit pytest -q tests/unit
test-service: .venv/tests.stamp ## the service with real peers
	$(TIMED) service pytest -q tests/service
test-faults: .venv/tests.stamp ## what breaks the service
	$(TIMED) faults pytest -q tests/faults
# By itself: Ansible replaces sys.intern, which torch's compiler then stumbles over.
test-roles: .venv/tests.stamp ## roles, playbooks and their plugins
	$(TIMED) roles pytest -q tests/roles
test-service-unit:
	@$(MAKE) test-service
	@$(MAKE) test-unit
# One after the other, so that never more than two run; with database servers of their own.
test-faults-roles: export OUTPOST_TEST_NET := 127.79.0
test-faults-roles:
	@$(MAKE) test-faults
	@$(MAKE) test-roles

# Tests too slow for `make test`, which only asks that each has passed on the files as they are: tests/lanes/lanes.py.
.PHONY: test-slow
test-slow: .venv/tests.stamp ## every slow lane whose record is out of date; ARGS=--list only says which, ARGS=--all before a release
	@.venv/bin/python tests/lanes/slow.py $(ARGS)

.PHONY: test-slow-engines test-slow-bundles test-slow-mutated
test-slow-engines: .venv/tests.stamp ## every engine of a bundle tried on this machine, bad ones too
	pytest -q tests/slow/test_engines.py
test-slow-bundles: .venv/tests.stamp ## `outpost bundle check` over every kind of fault
	pytest -q tests/slow/test_bundles.py
test-slow-mutated: .venv/tests.stamp ## ten thousand mutated DICOM files through intake
	pytest -q tests/slow/test_mutated.py

.PHONY: test-times
test-times: .venv/tests.stamp ## write how long each part and each lane took into docs/testing.md
	@.venv/bin/python tests/lanes/times.py write

.PHONY: damage
damage: .venv/tests.stamp ## every damage of the journal and of the service's files, each on a start of the real service
	OUTPOST_TEST_DAMAGE=all pytest tests/faults/test_journal_heals.py tests/faults/test_damaged_files.py

.PHONY: test-secrets
test-secrets: .venv/tests.stamp ## every task that handles a secret, whole and failing in every way, says none
	OUTPOST_TEST_SECRETS=all pytest -q tests/roles/test_secrets_in_runs.py

.PHONY: test-lab
test-lab: .venv/tests.stamp ## the lab itself
	$(TIMED) lab pytest -q tests/lab

.PHONY: test-drivers
test-drivers: test-drivers-pin test-drivers-set test-drivers-build test-drivers-run test-drivers-kernel test-drivers-container ## all lanes of the driver, one after the other

.PHONY: test-drivers-pin
test-drivers-pin: .venv/tests.stamp ## the driver's lock on real NVIDIA packages: apt, dnf, upgrades, power cuts
	pytest -q tests/drivers/test_driver_pin.py

.PHONY: test-drivers-set
test-drivers-set: .venv/tests.stamp ## driver sets made out of hosts, and hosts installed from them
	pytest -q tests/drivers/test_driver_set.py

.PHONY: test-drivers-build
test-drivers-build: .venv/tests.stamp ## DKMS builds the real module of the driver
	pytest -q tests/drivers/test_module_build.py

.PHONY: test-drivers-run
test-drivers-run: .venv/tests.stamp ## the .run route on the RED OS stand-in, with a stand-in for NVIDIA's installer
	pytest -q tests/drivers/test_run_installer.py

.PHONY: test-drivers-kernel
test-drivers-kernel: .venv/tests.stamp ## the driver on an emulated machine: nouveau, the role's reboot, the real module, power cuts
	@lab/bootstrap --kernel
	pytest -q -x tests/drivers/test_real_kernel.py

.PHONY: test-drivers-container
test-drivers-container: .venv/tests.stamp ## Docker 26 gives a container a stand-in GPU, or it is told why not
	pytest -q tests/drivers/test_container_gpu.py

# Peers live in a virtual environment of their own, over .venv's packages: one torch for both sides.
.venv-bench/setup.stamp: .venv/tests.stamp benchmarks/requirements.txt benchmarks/setup
	@benchmarks/setup && touch $@

.PHONY: bench-setup
bench-setup: .venv-bench/setup.stamp ## install the benchmarks' peers into .venv-bench

.PHONY: bench-throughput
bench-throughput: .venv-bench/setup.stamp ## studies a second against the roofline and peers; on a quiet machine
	@.venv-bench/bin/python benchmarks/throughput.py $(ARGS)

.PHONY: bad-studies
bad-studies: ## every kind of bad study in the running service, each followed by an ordinary one at full
	EVERY_BAD_STUDY=1 pytest -q tests/faults/test_quality_of_others.py

.PHONY: hostile
hostile: .venv/tests.stamp ## 10,000 seeded hostile structures to a real service: memory, deaths, readiness; some 20 minutes
	@PYTHONPATH=$(CURDIR)/service .venv/bin/python tests/faults/hostile_structures.py 20261130 0 10000 --keep benchmarks/results/hostile-$$(date -u +%F).json

.PHONY: bench-faults
bench-faults: .venv-bench/setup.stamp ## the fault matrix: ten faults, Outpost and six peers; as root
	@.venv-bench/bin/python benchmarks/faults.py $(ARGS)

.PHONY: release
release: bootstrap .venv/controller.stamp ## build the release of this checkout into dist/releases
	@service/build-release

# The tests of the lab fill the end of the shorter side.
.PHONY: test-hosts
test-hosts: release ## all scenarios and the lab, two at a time
	@$(MAKE) --output-sync=line --jobs=2 $(SCENARIOS:%=molecule-%) test-lab

# Two at a time: each has a lab and addresses of its own, and waits half of its time.
.PHONY: molecule
molecule: release ## all scenarios
	@$(MAKE) --output-sync=line --jobs=2 $(SCENARIOS:%=molecule-%)

.PHONY: $(SCENARIOS:%=molecule-%)
$(SCENARIOS:%=molecule-%): molecule-%: release
	$(TIMED) molecule-$* lab/scenario $*

.PHONY: test-rotation
test-rotation: release ## the root secret rotated under a region and a centre, killed at every step; half an hour
	lab/rotation

# Records what it proved, and on which files, in molecule/cuts/proven.json. OUTPOST_CUTS=10 is a sample.
CUTS := ubuntu astra redos
.PHONY: test-cuts $(CUTS:%=test-cuts-%)
test-cuts: $(CUTS:%=test-cuts-%) ## a first run and an update cut at every task on a host of each system; some two hours each
$(CUTS:%=test-cuts-%): test-cuts-%: release
	lab/cuts $*

.PHONY: test-removal
test-removal: release ## systems removed, clusters of PostgreSQL found and upgraded on a host, killed on the way; half an hour
	lab/removal

.PHONY: bench-intake bench-decode bench-health bench-filter bench-limits
bench-intake: .venv/tests.stamp ## C-STORE intake against storescp and stock pynetdicom, over veth; as root
bench-decode: .venv/tests.stamp ## decoders by transfer syntax
bench-health: .venv/tests.stamp ## the light health check against its millisecond
bench-filter: .venv/tests.stamp ## what the filter of input costs, and its share of a study's time
bench-limits: .venv/tests.stamp ## C-STORE throughput and health while somebody tries to spend the service
bench-intake bench-decode bench-health bench-filter bench-limits: bench-%:
	@.venv/bin/python benchmarks/$*.py $(ARGS)

# A lab's region that is up and has had its run; the demo's, where nothing else is said.
.PHONY: bench-noop
bench-noop: export LAB_NAME := $(or $(LAB_NAME),outpost)
bench-noop: .venv/controller.stamp ## site.yml where nothing is to do, on a host of the lab and on 20 that answer as it does
	@.venv/bin/python benchmarks/noop.py $(ARGS)

# The measures behind it take half an hour and packages of their own: service/training/plausible/README.md.
.PHONY: doubt
doubt: .venv/tests.stamp ## docs/doubt.md: what each threshold of doubt refuses and lets pass
	@PYTHONPATH=service .venv/bin/python service/training/plausible/calibrate.py publish

.PHONY: bench-drift
bench-drift: .venv-bench/setup.stamp ## ten years of image headers, watched by Outpost and by evidently
	@.venv-bench/bin/python benchmarks/drift.py $(ARGS)

.PHONY: bench-engines
bench-engines: .venv/tests.stamp ## engines on one CPU thread against torch eager
	@.venv/bin/python benchmarks/engines.py

.PHONY: cold
cold: ## prove `make demo` on a bare Debian container
	lab/prove-cold
