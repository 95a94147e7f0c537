# Everything a developer runs, by name. `make` alone prints this list.
PYTHON ?= python
SEEDS ?= 0,1,2
BUDGET ?= full
PAGES ?= benchmarks/*.yaml
export OMP_NUM_THREADS ?= 2

.DEFAULT_GOAL := help
.PHONY: help test lint table check-results rows smoke throughput paper-scale figures

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

test:  ## the whole test suite
	$(PYTHON) -m pytest -n 2 --dist loadfile

lint:  ## ruff and mypy
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

table:  ## results/README.md from the stored results
	spatialbench table --write

check-results:  ## stored rows are current, and their smoke runs come out again
	spatialbench check-results

rows:  ## fit, test and store every page (BUDGET=full SEEDS=0,1,2); what is done is kept
	spatialbench run $(PAGES) --budget $(BUDGET) --seeds $(SEEDS)

smoke:  ## store the smoke results that check-results repeats
	spatialbench run $(PAGES) --budget smoke --seeds 0 --force

throughput:  ## images a second of every stage and one whole quick fit, to results/throughput.json (15 minutes)
	$(PYTHON) -m tools.throughput

paper-scale:  ## spatial attention at the paper's sizes on one GPU, to results/paper_scale.json
	$(PYTHON) -m tools.paper_scale

figures:  ## the README's pictures
	$(PYTHON) -m tools.figures
