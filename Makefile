# Everything that is run by hand. `make` alone says what there is.
.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
READY := $(VENV)/.ready
DEMO_VIDEO := data/demo/with_sound.mp4
PORT ?= 4200
SERVER ?= http://127.0.0.1:$(PORT)

# dvc.yaml's commands say `python`: it must be the one with everything installed, activated or not.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help demo quality paper test test-all browser lint setup use ui ui-stop worker update-yt-dlp

help: ## Says what there is
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## Builds everything from nothing, then gives a silent video its sound back
	@soundback prune
	dvc repro
	@mkdir -p $(dir $(DEMO_VIDEO))
	@silent=$$(ls data/report/examples/*_silent.mp4 | head -n 1) && \
	  echo && echo "Giving $$silent its sound back" && \
	  soundback generate "$$silent" -o $(DEMO_VIDEO) --overwrite
	@echo
	@soundback metrics
	@echo
	@echo "Video with sound:  $(DEMO_VIDEO)"
	@echo "Report:            data/report/index.html"
	@echo "Your own clips:    $(VENV)/bin/soundback generate YOUR_VIDEO -o OUT.mp4"

quality: $(READY) ## Trains ours and the paper's from three seeds, and shows what each part is worth (an estimated two hours)
	@soundback prune
	dvc repro quality/dvc.yaml
	@echo
	@cat data/quality/report/table.txt
	@echo "Page:  data/quality/report/index.html"
	@echo
	@soundback metrics data/metrics/quality.json --within tests/quality.yaml

paper: $(READY) ## Builds the paper's own system from the same data, and measures it as ours is
	@soundback prune
	dvc repro paper/dvc.yaml
	@echo
	@soundback metrics data/metrics/paper.json
	@echo "Report:  data/paper/report/index.html"

# Two at a time, as one that waits for a program to start leaves a core to the other. Tests of a file share what they
# set up; the slow ones measure, or use both cores themselves.
test: $(READY) ## Runs the tests, all but those that take minutes each
	pytest -m "not slow" --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-all: $(READY) browser test ## Runs every test
	pytest -m slow

# Some tests look at the pages as a user does. Playwright's own browser is for where the system has none to offer.
browser: $(READY) ## Sees to a browser for test-all
	@for found in chromium chromium-browser google-chrome google-chrome-stable; do \
	  command -v $$found >/dev/null && exit 0; \
	done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-cache show chromium >/dev/null 2>&1; then \
	  apt-get install --yes --quiet chromium && exit 0; \
	fi; \
	playwright install chromium && exit 0; \
	echo "The tests of Prefect's pages need Chromium, and it could not be installed: put chromium or google-chrome on" \
	  "PATH (Debian: sudo apt install chromium), then say make test-all again."; \
	exit 1

lint: $(READY) ## Checks style, types and the direction of imports
	ruff check .
	ruff format --check .
	mypy
	lint-imports

setup: $(READY) ## Makes .venv and installs what constraints.txt pins (the others do this first)

# Refuses to overwrite settings that are in no profile: they would be gone.
use: ## Switches params.yaml to a profile: make use PROFILE=smoke
	@test -f "profiles/$(PROFILE).yaml" || { \
	  echo "There is no profile '$(PROFILE)'. Say make use PROFILE=x with one of:" $$(basename -s .yaml profiles/*.yaml); exit 2; }
	@for profile in profiles/*.yaml; do cmp -s "$$profile" params.yaml && kept=yes; done; \
	  test "$$kept" = yes -o ! -e params.yaml || { \
	  echo "params.yaml has settings of your own: keep them with cp params.yaml profiles/NAME.yaml, or delete the file."; exit 2; }
	@cp "profiles/$(PROFILE).yaml" params.yaml
	@! test -e $(READY) || soundback prune
	@echo "params.yaml is now profiles/$(PROFILE).yaml; dvc repro builds it."

ui: $(READY) ## Starts Prefect's server and a worker here, with the pipeline deployed: make ui PORT=4200
	@python -m flows.ui start --port $(PORT)

ui-stop: $(READY) ## Stops them
	@python -m flows.ui stop

worker: $(READY) ## Makes soundtracks here for a `make ui` elsewhere: make worker SERVER=http://127.0.0.1:4200
	@python -m flows.ui work --server $(SERVER)

update-yt-dlp: $(READY) ## Fetches the newest yt-dlp: YouTube shuts old ones out
	python -m pip install --upgrade "yt-dlp[default,deno]"

# The stamp is newer than both files while nothing needs to be installed.
$(READY): pyproject.toml constraints.txt
	@PATH="$${PATH#$(CURDIR)/$(VENV)/bin:}"; \
	for python in python3.13 python3.12 python3.11 python3 none; do \
	  $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && break; \
	done; \
	if [ $$python = none ]; then \
	  echo "Soundback needs Python 3.11, 3.12 or 3.13 and found none: install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python@3.13; anywhere: https://www.python.org/downloads/), then run make again."; \
	  exit 1; \
	fi; \
	if ! $(VENV)/bin/python -m pip --version >/dev/null 2>&1; then \
	  rm -rf $(VENV); \
	  $$python -m venv $(VENV) || { \
	    rm -rf $(VENV); \
	    echo "$$python cannot make a virtual environment: install its venv module (Debian, Ubuntu: apt install $$python-venv), then run make again."; \
	    exit 1; }; \
	fi
	@$(VENV)/bin/python .ci/install.py
	@touch $@
