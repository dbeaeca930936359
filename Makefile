# Thin on purpose: what a person types. `make demo` and `make test` need only python3 (3.11 or later) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Of pytest; tests share two cores well, and each worker loads torch.
WORKERS ?= 2
PAIRS ?= qwen2.5-coder-1.5b--qwen2.5-coder-0.5b qwen2.5-coder-0.5b--smollm2-135m qwen2.5-coder-1.5b--smollm2-135m
# NAME=DATA of the tables of docs/results/; data/ holds exports as JSON lines (docs/evaluation.md).
DOCUMENTS ?= records=records:heldout coined=records:heldout_coined notes=notes:heldout_kinds \
	squad=data/squad/dev.jsonl.gz nq_swap=data/nq_swap/dev.jsonl.gz
CHOICES ?= $(foreach set,arc_easy arc_challenge openbookqa mmlu_redux,$(set)=data/$(set)/test.jsonl.gz)
LIMIT ?= 160
PACKAGES := ops cloud_node edge_node fuser proto tests examples

.DEFAULT_GOAL := help
.PHONY: help install demo test test-real test-wheel check format proto bench results docs clean

help:
	@echo "make demo     answers over the wire with a real pair: installs, fetches the models, prints one table"
	@echo "              (make demo PAIR=qwen2.5-coder-1.5b--qwen2.5-coder-0.5b: the larger pair, 1.6 GB to fetch)"
	@echo "make test     installs if need be and runs the tests, two at a time (make test WORKERS=0: in one process)"
	@echo "make check    lint, format and types, as CI runs them"
	@echo "make format   fixes what can be fixed"
	@echo "make docs     the pages with the API reference, as HTML in site/"
	@echo "make proto    regenerates the code of proto/kvwire/v1 after a change of its .proto"
	@echo "make bench    measures this machine, over slow links too, and puts tables and pictures into docs/benchmarks.md;"
	@echo "              goes on where it was (make bench BENCHES=codecs: a part of it)"
	@echo "make results  measures every bundle on every set and puts the tables into docs/results/: hours; goes on where it was"
	@echo "              (make results PAIRS=... DOCUMENTS=records=records:heldout CHOICES= LIMIT=20: a part of them)"

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

# torch goes first and alone: the index of the machine then decides whether it is a CPU or a GPU build.
$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install "torch==2.13.0"
	$(BIN)/python -m pip install -c constraints.txt -e '.[demo,train,dev]'
	@touch $@

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/kvwire demo $(if $(PAIR),--bundle $(PAIR))

# A report that is there is not measured again: a run that was stopped goes on, and `rm -r build/bench` begins anew.
# These numbers keep all of it under 40 minutes on 2 cores.
codecs := --limit 6
prefixes := --tokens 100,400,1600 --rounds 3
local := --limit 8
cloud := --streams 1,4,8,16 --limit 16
link := --rates 1,5,20,100 --rtt 5,40 --limit 3 --utilisation 10,50,100
scale := --service build/bench/prefixes.json --serve 1,2,4
BENCHES ?= codecs prefixes local cloud link scale
bench: $(BENCHES:%=build/bench/%.json)
	for report in $^; do case $$report in */scale.json) page=scale;; *) page=benchmarks;; esac; \
		$(BIN)/kvwire bench put $$report --into docs/$$page.md --pictures docs/benchmarks || exit; done

build/bench/scale.json: build/bench/prefixes.json
build/bench/%.json: | $(STAMP)
	mkdir -p build/bench
	$(BIN)/kvwire bench $* $($*) --json $@.part
	mv $@.part $@

# Answers are kept, so what was measured before is read, not run. A pair without a place for a set has no table of it.
results: $(STAMP)
	@set -e; mkdir -p build/results; for pair in $(PAIRS); do for set in $(DOCUMENTS) $(CHOICES); do \
		place=$${set%%=*}; grep -q "^<!-- kvwire eval $$place -->" docs/results/$$pair.md || continue; \
		case " $(CHOICES) " in *" $$set "*) settings=choices;; *) settings=eval;; esac; \
		$(BIN)/kvwire eval fuser/bundles/$$pair ops/examples/$$settings.toml --set data=$${set#*=} --set limit=$(LIMIT) \
			--json build/results/$$pair-$$place.json --into docs/results/$$pair.md --place $$place; done; done

test: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS)

test-real: $(STAMP)
	KVWIRE_TEST_REAL=1 $(BIN)/python -m pytest -m real

test-wheel: $(STAMP)
	KVWIRE_TEST_WHEEL=1 $(BIN)/python -m pytest -m wheel

check: $(STAMP)
	$(BIN)/ruff check $(PACKAGES)
	$(BIN)/ruff format --check $(PACKAGES)
	$(BIN)/mypy
	$(BIN)/python tests/import_closure.py

format: $(STAMP)
	$(BIN)/ruff check --fix $(PACKAGES)
	$(BIN)/ruff format $(PACKAGES)

proto: $(STAMP)
	$(BIN)/python -m grpc_tools.protoc -I proto --python_out=proto --pyi_out=proto --grpc_python_out=proto \
		proto/kvwire/v1/sharer.proto

docs: $(STAMP)
	$(BIN)/python -m pip install -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf site $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
