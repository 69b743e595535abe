# Each target does everything that it needs; what is there already is used again. See CONTRIBUTING.md.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
ARGS ?=
export LERF_SEED LERF_SEEDS DATA DEPTH

.PHONY: help demo evaluate test lint build clean distclean

help:  ## this text
	@echo "make <target>, on a fresh Debian or Ubuntu machine with Python 3.10 to 3.13, a C++ compiler and git:"
	@sed -n 's/^\([a-z]*\):.*##/  \1\t/p' Makefile | expand -t 14

demo: build  ## map a generated room and find things in it: LERF_SEED=n for another room, DATA=<folder> for a recording, DEPTH=off: colours alone, ARGS="--help" for more
	@source tools/env.sh && exec install/lerf_ros/lib/lerf_ros/demo $(ARGS)

evaluate: build  ## how often the right thing is found, in rooms with truth: LERF_SEEDS=a,b,c for other rooms, ARGS="--help" for more
	@source tools/env.sh && exec python -m lerf_ros.evaluation $(ARGS)

test: build  ## every test; a part of them: make test ARGS="test/field -k hash"
	@source tools/env.sh && ROS_PYTHON_CHECK_FIELDS=1 exec pytest $(ARGS)

lint: build  ## ruff and mypy
	@source tools/env.sh && ruff check . && exec mypy

build:  ## virtual environment, ROS 2, torch, colcon build; PYTHON=/path/to/python3 to choose one
	@$(PYTHON) tools/setup_env.py $(PYTHON)

clean:  ## remove what was built and written
	rm -rf build install log demo_out

distclean: clean  ## remove the virtual environments as well
	rm -rf .venv .venv-*
