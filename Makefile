# Two commands do everything on a fresh machine: `make demo` and `make test`. Both make .venv by themselves.
PYTHON ?= python3
TORCH  ?= torch
TORCHVISION ?= torch torchvision
SHARED := --dist loadfile --no-loadscope-reorder
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo environments nnunet-test trainers-test frameworks-test exports-test gpu-test test fast-test check test-optimized coverage mutation soak example example-test lint lint-github dist sbom wheel-demo sizes bench bench-test bench-compare guard guard-write docs figures floors clean

help:                 ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 16

# torch goes first, so that TORCH=... decides which build everything after it finds installed.
# opencv-python 5 needs the system's libGL; where that is missing the headless build takes its place.
$(STAMP): pyproject.toml Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q $(TORCH)
	$(BIN)/python -m pip install -q -e '.[dev]'
	$(BIN)/python -c 'import cv2' 2>/dev/null || \
	  $(BIN)/python -m pip install -q --force-reinstall --no-deps opencv-python-headless
	touch $(STAMP)

# The large example has an environment of its own: its libraries need torchvision, built for the same torch.
EXAMPLE := examples/hand_bones
EXAMPLE_VENV  := .venv-hand-bones
EXAMPLE_BIN   := $(EXAMPLE_VENV)/bin
EXAMPLE_STAMP := $(EXAMPLE_VENV)/.installed
$(EXAMPLE_STAMP): pyproject.toml Makefile $(EXAMPLE)/requirements.txt
	$(PYTHON) -m venv $(EXAMPLE_VENV)
	$(EXAMPLE_BIN)/python -m pip install -q --upgrade pip
	$(EXAMPLE_BIN)/python -m pip install -q $(TORCHVISION)
	$(EXAMPLE_BIN)/python -m pip install -q $(TORCHVISION) -e '.[onnx,plot]' -r $(EXAMPLE)/requirements.txt
	$(EXAMPLE_BIN)/python -c 'import cv2' 2>/dev/null || \
	  $(EXAMPLE_BIN)/python -m pip install -q --force-reinstall --no-deps opencv-python-headless
	touch $(EXAMPLE_STAMP)

demo: $(STAMP)        ## three real networks, real images, one submission CSV with a score
	$(BIN)/ensk demo --out demo-out --force

# One worker more than cores: tests wait for disks, timers and processes that they start.
test: $(STAMP)        ## the suite, but for benchmarks
	$(BIN)/python -m pytest -n $$(( $$(nproc) + 1 )) $(SHARED) --ignore tests/test_benchmarks.py

bench-test: $(STAMP)  ## every benchmark once, on little data
	$(BIN)/python -m pytest -n auto --dist load tests/test_benchmarks.py

check: $(STAMP)       ## lint and the fast tests, side by side, in under two minutes
	$(MAKE) -j2 lint fast-test

fast-test: $(STAMP)   ## the tests that are not marked slow
	$(BIN)/python -m pytest -n auto $(SHARED) -m "not slow"

test-optimized: $(STAMP) ## the whole suite under python -O, children too; its own assertions hold
	PYTHONOPTIMIZE=1 $(BIN)/python -m pytest -W "ignore:assertions not in test modules" -n auto $(SHARED)

soak: $(STAMP)        ## an hour of every command in one process: nothing may grow
	ENSK_SOAK=3600 $(BIN)/python -m pytest tests/faults/test_load.py -k hours_of_work

mutation: $(STAMP)    ## mutation testing of runs and hard votes: changes of their source that no test notices
	$(BIN)/python tests/mutation.py

# the tests of those modules, but for what runs, and dies, in processes of its own
COVERED := $(wildcard $(foreach t,store writer packed remote codecs ingest runs maskset labels label_maps voting argmax \
  deciding plurality arrays recipes thresholds factors metrics void shift argument_kinds formats_* cli_verify refusals \
  tuning validation many_processes faults/test_store_at_rest faults/test_rle faults/test_csv faults/test_repair \
  faults/test_security faults/test_remote_faults faults/test_stateful faults/test_matching faults/test_numerics, \
  tests/$(if $(findstring /,$t),$t,test_$t).py))
coverage: $(STAMP)    ## branch coverage of store, masks and formats; fails below 95 %
	$(BIN)/python -m pytest -n auto $(SHARED) --cov --cov-report=term:skip-covered $(COVERED)

example: $(EXAMPLE_STAMP) ## hand bones: images made, three networks trained, tuned, voted, scored (examples/hand_bones)
	$(EXAMPLE_BIN)/python $(EXAMPLE)/run.py --out hand-bones-out

example-test: $(EXAMPLE_STAMP) ## the suite of examples/hand_bones
	OMP_WAIT_POLICY=PASSIVE $(EXAMPLE_BIN)/python -m pytest $(EXAMPLE)/tests

# nnU-Net joins the environment of the large example, whose torch and torchvision it needs too: each is gigabytes.
VOLUMES := examples/volumes
VOLUMES_STAMP := $(EXAMPLE_VENV)/.nnunet-installed
$(VOLUMES_STAMP): $(EXAMPLE_STAMP) $(VOLUMES)/requirements.txt $(VOLUMES)/requirements-nnunet.txt
	$(EXAMPLE_BIN)/python -m pip install -q -r $(VOLUMES)/requirements.txt
	$(EXAMPLE_BIN)/python -m pip install -q --no-deps -r $(VOLUMES)/requirements-nnunet.txt
	touch $(VOLUMES_STAMP)

nnunet-test: $(VOLUMES_STAMP) ## networks of nnU-Net, trained in a minute, and its own answers against the kit's
	OMP_NUM_THREADS=1 $(EXAMPLE_BIN)/python -m pytest $(VOLUMES)/tests

# The frameworks whose trainers the kit writes for: they need neither torchvision nor CUDA, so torch is as small as TORCH says.
TRAINERS := tests/trainers
TRAINERS_VENV := .venv-trainers
TRAINERS_BIN  := $(TRAINERS_VENV)/bin
TRAINERS_STAMP := $(TRAINERS_VENV)/.installed
$(TRAINERS_STAMP): pyproject.toml Makefile $(TRAINERS)/requirements.txt
	$(PYTHON) -m venv $(TRAINERS_VENV)
	$(TRAINERS_BIN)/python -m pip install -q --upgrade pip
	$(TRAINERS_BIN)/python -m pip install -q $(TORCH)
	$(TRAINERS_BIN)/python -m pip install -q $(TORCH) -e . -r $(TRAINERS)/requirements.txt
	$(TRAINERS_BIN)/python -c 'import cv2' 2>/dev/null || \
	  $(TRAINERS_BIN)/python -m pip install -q --force-reinstall --no-deps opencv-python-headless
	touch $(TRAINERS_STAMP)

environments: $(STAMP) $(EXAMPLE_STAMP) $(TRAINERS_STAMP) ## those of all tests; with -j3 they are made side by side

trainers-test: $(TRAINERS_STAMP) ## each training framework runs a small network, alone and in two processes, killed and resumed
	$(TRAINERS_BIN)/python -m pytest $(TRAINERS) --ignore $(TRAINERS)/examples

# Frameworks with an example of their own, in the environment of the large example too: they need torchvision. Ultralytics
# is under the AGPL-3.0, and nothing but its example imports it.
FRAMEWORKS := $(TRAINERS)/examples
FRAMEWORKS_STAMP := $(EXAMPLE_VENV)/.frameworks-installed
$(FRAMEWORKS_STAMP): $(EXAMPLE_STAMP) examples/trainers/requirements.txt
	$(EXAMPLE_BIN)/python -m pip install -q setuptools wheel
	$(EXAMPLE_BIN)/python -m pip install -q -r examples/trainers/requirements.txt
	touch $(FRAMEWORKS_STAMP)

frameworks-test: $(FRAMEWORKS_STAMP) ## mmsegmentation, TorchGeo and Ultralytics likewise, by their examples
	$(EXAMPLE_BIN)/python -m pytest $(FRAMEWORKS)

# The programs that masks and reports are exported to. napari's plugin of pytest does not bear warnings as errors.
EXPORTS := tests/exports
EXPORTS_VENV  := .venv-exports
EXPORTS_BIN   := $(EXPORTS_VENV)/bin
EXPORTS_STAMP := $(EXPORTS_VENV)/.installed
$(EXPORTS_STAMP): pyproject.toml Makefile $(EXPORTS)/requirements.txt
	$(PYTHON) -m venv $(EXPORTS_VENV)
	$(EXPORTS_BIN)/python -m pip install -q --upgrade pip
	$(EXPORTS_BIN)/python -m pip install -q $(TORCH)
	$(EXPORTS_BIN)/python -m pip install -q $(TORCH) -e . pytest hypothesis pycocotools -r $(EXPORTS)/requirements.txt
	$(EXPORTS_BIN)/python -c 'import cv2' 2>/dev/null || \
	  $(EXPORTS_BIN)/python -m pip install -q --force-reinstall --no-deps opencv-python-headless
	touch $(EXPORTS_STAMP)

exports-test: $(EXPORTS_STAMP) ## OME's schemas, napari's reader, FiftyOne, W&B and MLflow take what the kit exports
	PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 $(EXPORTS_BIN)/python -m pytest $(EXPORTS)

gpu-test: $(EXAMPLE_STAMP) ## what only a GPU shows, in 8 minutes; where there is none it says so
	$(EXAMPLE_BIN)/python tests/gpu/run.py

lint: $(STAMP) lint-github ## ruff and mypy; schemas and an audit of what GitHub reads
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# check-jsonschema brings the schemas along; zizmor asks nobody. Nothing here needs a network.
SCHEMA := $(BIN)/check-jsonschema -qq --builtin-schema
lint-github: $(STAMP)
	$(SCHEMA) vendor.github-workflows .github/workflows/*.yml
	$(SCHEMA) vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(SCHEMA) vendor.github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	$(SCHEMA) vendor.dependabot .github/dependabot.yml
	$(SCHEMA) vendor.citation-file-format CITATION.cff
	$(BIN)/zizmor --offline --persona pedantic --quiet .github

# Built twice, by the builder of release/constraints.txt and at the time of the commit: whoever builds this commit gets these bytes.
BUILD = SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) PIP_CONSTRAINT=$(CURDIR)/release/constraints.txt $(BIN)/python -m build -o
dist: $(STAMP)        ## wheel and sdist, the same bytes every time, checked
	rm -rf dist $(VENV)-dist
	$(BUILD) dist
	$(BUILD) $(VENV)-dist
	diff -r dist $(VENV)-dist && rm -rf $(VENV)-dist
	$(BIN)/twine check --strict dist/*.whl dist/*.tar.gz
	sha256sum dist/*

sbom: dist            ## dist and, beside it, what an installation of the wheel brings along: *.cdx.json (CycloneDX 1.6)
	$(PYTHON) -m venv --clear --without-pip $(VENV)-sbom
	$(BIN)/python -m pip --python $(VENV)-sbom/bin/python install -q $(TORCH)
	$(BIN)/python -m pip --python $(VENV)-sbom/bin/python install -q $(TORCH) dist/*.whl
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --mc-type library --output-reproducible \
	  --sv 1.6 --of JSON -o dist/$$(basename dist/*.whl -py3-none-any.whl).cdx.json $(VENV)-sbom/bin/python
	rm -rf $(VENV)-sbom

wheel-demo:           ## the demo from a wheel of this tree, in an empty environment: make wheel-demo PYTHON=python3.13
	$(PYTHON) -m venv --clear $(VENV)-wheel
	$(VENV)-wheel/bin/python -m pip install -q $(TORCH)
	$(VENV)-wheel/bin/python -m pip wheel -q --no-deps -w $(VENV)-wheel/dist .
	$(VENV)-wheel/bin/python -m pip install -q $(TORCH) $(VENV)-wheel/dist/*.whl
	$(VENV)-wheel/bin/python -c 'import cv2' 2>/dev/null || \
	  $(VENV)-wheel/bin/python -m pip install -q --force-reinstall --no-deps opencv-python-headless
	cd $(VENV)-wheel && bin/ensk demo --out demo

sizes: $(STAMP)       ## measure what an installation takes; writes the table of docs/install.md (CUDA=torch==...)
	$(BIN)/python release/sizes.py --torch $(TORCH) $(if $(CUDA),--cuda $(CUDA)) --page docs/install.md

bench: $(STAMP)       ## benchmarks against rivals, in one process; writes docs/performance.md (USGRA=FOLDER: more logits)
	$(BIN)/python -m pip install -q -e '.[bench]'
	$(BIN)/python tests/benchmarks/run.py --page docs/performance.md --readme README.md $(if $(USGRA),--usgra $(USGRA))
	$(BIN)/python tests/benchmarks/run.py --table exclusive --page docs/performance.md
	$(BIN)/python tests/benchmarks/run.py --table volumes --page docs/performance.md
	$(BIN)/python tests/benchmarks/growth.py
	$(BIN)/python tests/benchmarks/large.py --page docs/performance.md

docs: $(STAMP)        ## write docs/cli.md, api.md, errors.md and what `ensk explain` reads; build the docs site, strictly, into site/
	PYTHONPATH=tests $(BIN)/python -m pages
	PYTHONPATH=tests $(BIN)/python -m pages.site site

figures: $(STAMP)     ## draw the pictures of README and of the gallery again
	$(BIN)/python docs/figures/draw_road.py
	$(BIN)/python docs/figures/draw_gallery.py

BASE ?= HEAD
bench-compare: $(STAMP) ## our own times now against those of a revision: make bench-compare BASE=v0.1.0
	$(BIN)/python tests/benchmarks/compare.py $(BASE)

# the same on a busy machine as on a quiet one, and on any processor with AVX2; a minute where nothing else runs
guard: $(STAMP)       ## count the instructions of the main jobs (valgrind) against those on record; says where it cannot
	$(BIN)/python tests/benchmarks/guard.py

guard-write: $(STAMP) ## count them and record them anew: tests/benchmarks/instructions.json
	$(BIN)/python tests/benchmarks/guard.py --write

# torch 2.3 is the first that was built for NumPy 2 (on PyPI a CUDA build of gigabytes: FLOOR_TORCH=torch tries the others
# without it); typer 0.16 warns about releases of click after it
FLOOR_TORCH ?= torch==2.3.0
FLOORS = $(FLOOR_TORCH) numpy==2.0.* scipy==1.13.* numba==0.60.* pandas==2.2.2 optuna==4.0.* opencv-python==4.10.* zarr==3.1.0 typer==0.16.* rich==13.8.* nibabel==5.2.* pynrrd==1.1.1
floors: pyproject.toml ## the suite on the oldest versions that pyproject allows
	$(PYTHON) -m venv $(VENV)-floors
	$(VENV)-floors/bin/python -m pip install -q --upgrade pip
	$(VENV)-floors/bin/python -m pip install -q -e '.[dev]' $(FLOORS) 'click==8.1.*'
	$(VENV)-floors/bin/python -m pytest -n auto $(SHARED)

clean:                ## remove what make made
	rm -rf $(VENV) $(VENV)-floors $(VENV)-dist $(VENV)-sbom $(VENV)-wheel $(EXAMPLE_VENV) $(TRAINERS_VENV) $(EXPORTS_VENV) demo-out hand-bones-out dist site .coverage* htmlcov
