# A fresh machine with Python >= 3.11, git and make is enough: everything else is set up in .venv.

PYTHON ?= python3
LISTEN ?= localhost:8000
DEMO := .demo
MINUTES ?= 10
AT_ONCE ?= 3
STEPS ?= 20000
KILLS ?= 100
BIN := .venv/bin
UV := $(shell command -v uv)

# pip heeds the user's pip.conf, which uv does not; groups need pip >= 25.1.
ifdef UV
MAKE_VENV = uv venv --quiet --python $(PYTHON) .venv
INSTALL = uv pip install --quiet --python $(BIN)/python
else
MAKE_VENV = $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
INSTALL = $(BIN)/python -m pip install --quiet
endif

.PHONY: demo test fuzz chaos stress-data stress-versionbase check lint types states bench-router bench-deploy bench-data bench-versionbase clean

demo: .venv/.installed
	@test -e "$(DEMO)/guestbook" || echo "Making a guestbook in $(DEMO)/guestbook"
	@$(BIN)/python examples/make_demo.py "$(DEMO)/guestbook" --listen "$(LISTEN)"
	@$(BIN)/lazycloud hook install "$(DEMO)/guestbook" --home "$(DEMO)/home"
	@exec $(BIN)/lazycloud up "$(DEMO)/guestbook" --home "$(DEMO)/home" --listen "$(LISTEN)"

# AT_ONCE files of tests at once; 0 for one after the other. What fails among others is tried again alone.
test: .venv/.installed-test
	$(BIN)/python -m tests --at-once $(AT_ONCE)

# Other requests and answers every time; the tests try the same few.
fuzz: .venv/.installed-test
	LAZYCLOUD_FUZZ_MINUTES=$(MINUTES) $(BIN)/python -m pytest tests/router/test_fuzz.py

# Kills and hangs at random for MINUTES; the same ones again for the same SEED. ARGUMENTS=--containers kills an engine, too.
chaos: .venv/.installed-test
	$(BIN)/python -m tests.e2e.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGUMENTS)

# Moments of databases that are written, while their writers, the holder and control are killed; images are compared.
stress-data: .venv/.installed-test
	$(BIN)/python -m tests.data.stress --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

# STEPS of versionbase's store and of its engine against their models, on SQLite and on Postgres, others every time; and
# KILLS of who writes, and of a server with clients, whose histories are checked.
stress-versionbase: .venv/.installed-test
	LAZYCLOUD_VERSIONBASE_STEPS=$(STEPS) LAZYCLOUD_VERSIONBASE_KILLS=$(KILLS) \
		$(BIN)/python -m pytest -vv --timeout 0 tests/versionbase/test_machine.py tests/versionbase/test_killed.py \
		tests/versionbase/test_model.py tests/versionbase/test_concurrency.py

check: lint types test

lint: .venv/.installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/.installed-test
	$(BIN)/mypy

# A test compares.
states: .venv/.installed
	$(BIN)/python -m lazycloud.states > docs/states.md

# FIGURES="keepalive idle" for some of them, ARGUMENTS for its flags.
bench-router: .venv/.installed
	$(BIN)/python bench/router.py $(FIGURES) $(ARGUMENTS)

# FIGURES="deploys lockfile", ARGUMENTS="--rounds 5"; the page is opened in a Chromium that is on PATH.
bench-deploy: .venv/.installed-test
	$(BIN)/python bench/deploy.py $(FIGURES) $(ARGUMENTS)

# FIGURES="marks images", ARGUMENTS="--sizes 10 --rounds 3"; reflinks are measured by root, with mkfs.xfs and mkfs.btrfs.
bench-data: .venv/.installed
	$(BIN)/python bench/data.py $(FIGURES) $(ARGUMENTS)

# Beside tables of SQLite; of Postgres too with ARGUMENTS="--url postgresql://…". Ten minutes, and 20 GB written.
bench-versionbase: .venv/.installed
	$(BIN)/python bench/versionbase.py $(FIGURES) $(ARGUMENTS)

clean:
	rm -rf .venv $(DEMO) .hypothesis .pytest_cache .mypy_cache .ruff_cache

$(BIN)/python:
	$(MAKE_VENV)

.venv/.installed: pyproject.toml | $(BIN)/python
	@echo "Setting up .venv"
	@$(INSTALL) --editable .
	@touch $@

.venv/.installed-test: .venv/.installed
	@$(INSTALL) --editable . --group test --group check
	@touch $@
