# Everything a developer runs, by name and with its cost. `make` alone prints this list.
PYTHON ?= python
SEEDS ?= 0,1,2
BUDGET ?= full
PAGES ?= benchmarks/*.yaml
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help test fast lint structure table check-results rows smoke throughput paper-scale figures

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

test:  ## the whole test suite (10 minutes on two cores)
	$(PYTHON) -m pytest -n 2 --dist loadfile

fast:  ## the tests that train nothing and start no process (2 minutes)
	$(PYTHON) -m pytest -n 2 --dist loadfile -m "not slow"

lint:  ## ruff and mypy (1 minute)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

structure:  ## counts of the package's structure against their limits (seconds)
	$(PYTHON) -m tools.structure

table:  ## results/README.md, and the table of README.md, from the stored results (1 minute)
	spatialbench table --write

check-results:  ## are the stored rows current, and do their smoke runs repeat? (4 minutes)
	spatialbench check-results --processes 2

rows:  ## fit, test and store every page (10 minutes for each page, seed and core; keeps what is done)
	spatialbench run $(PAGES) --budget $(BUDGET) --seeds $(SEEDS)

smoke:  ## store the smoke rows that check-results repeats (4 minutes)
	spatialbench run $(PAGES) --budget smoke --seeds 0 --force

throughput:  ## images a second of every stage, and one whole quick fit (15 minutes)
	$(PYTHON) -m tools.throughput

paper-scale:  ## spatial attention at the paper's sizes (one GPU, 10 minutes)
	$(PYTHON) -m tools.paper_scale

figures:  ## the README's figures (1 minute)
	$(PYTHON) -m tools.figures
