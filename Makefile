# make demo and make test are the whole set-up: both prepare what they need first.
PYTHON ?= python3
SET_UP := $(PYTHON) scripts/set_up
ARGS ?=
# Three processes for two cores (test/conftest.py); a file's tests stay together, since they share nodes and networks.
PARALLEL := scripts/with_ros python -m pytest -n auto --maxprocesses 8 --dist loadfile

# make test-python: another Python, another NumPy, another ROS, in a virtual environment of its own.
NUMPY ?=
ROS ?=
LAYERS ?= dev
ENVIRONMENT = build/environments/$(notdir $(PYTHON))$(addprefix -numpy,$(NUMPY))$(addprefix -,$(ROS))

.PHONY: help setup demo view test test-fast test-view test-openmmlab test-python lint format clean

help:
	@echo "make demo             see the node at work on a clip, over ROS 2 (sets up what it needs)"
	@echo "make view             the same in a browser: image, skeletons, space, plots"
	@echo "make test             run the tests on ROS 2 (ARGS='-k masks' are passed on to pytest)"
	@echo "make test-fast        the quick ones among them, under three minutes, for who changes a line"
	@echo "make test-view        what is looked at, in a headless browser; Ray"
	@echo "make test-openmmlab   compare with OpenMMLab (compiles mmcv once, 15 to 25 minutes)"
	@echo "make test-python      the quick tests with PYTHON=python3.13, and NUMPY=2.3.5, ROS=ros-kilted"
	@echo "make lint             ruff and mypy;  make format  lets ruff change the files"
	@echo "make setup            .venv, ROS 2 and the workspace only"
	@echo "make clean            remove .venv, build, install and log"

setup:
	@$(SET_UP) base ros

demo:
	@$(SET_UP) base ros evaluate
	@scripts/with_ros python -m bmp_ros demo $(ARGS)

view:
	@$(SET_UP) base ros view
	@scripts/with_ros python -m bmp_ros view --demo --web $(ARGS)

test:
	@$(SET_UP) base ros torch train synthetic dev evaluate-tracking
	@$(PARALLEL) -m "not openmmlab" --ignore=test/engines/openmmlab $(ARGS)

test-fast:
	@$(SET_UP) base ros torch synthetic dev
	@$(PARALLEL) -m "not openmmlab and not slow" --ignore=test/engines/openmmlab $(ARGS)

# What needs the viewer, a browser, plotly or Ray: left out by make test, which does not install them.
test-view:
	@$(SET_UP) base ros dev evaluate-tracking view view-test report archives
	@scripts/with_ros python -m pytest test/viewing test/reporting test/archives/test_ray.py $(ARGS)

test-openmmlab:
	@$(SET_UP) base ros torch dev openmmlab
	@scripts/with_ros python -m pytest -m openmmlab $(ARGS)

test-python: export BMP_VENV = $(ENVIRONMENT)
test-python:
	@$(SET_UP) $(if $(ROS),,--no-build) base $(ROS) $(LAYERS)
	@$(if $(NUMPY),$(ENVIRONMENT)/bin/python -m pip install -q numpy==$(NUMPY))
	@$(if $(ROS),scripts/with_ros,. $(ENVIRONMENT)/bin/activate &&) \
	  python -m pytest -m "not openmmlab and not slow" --ignore=test/engines/openmmlab $(ARGS)

lint:
	@$(SET_UP) --no-build base torch dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format:
	@$(SET_UP) --no-build base dev
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean:
	rm -rf .venv build install log
