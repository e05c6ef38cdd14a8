# make demo   fetch real data, train a model, optimize, judge, release and serve it
# make rollout-demo   roll it out on this machine; bad canaries roll themselves back
# make test   lint, type-check and test
# make images   build the container images with podman or docker
# demo and test make .venv on first use, and again only when what is installed changes.

PYTHON ?= python3
VENV ?= .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
TORCH := torch==2.13.0
# CPU builds of torch, without gigabytes of CUDA; where the index cannot be reached pip goes on.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# An editable install links files: a new file needs a new install, so the key holds the list.
KEY := $(shell (cat pyproject.toml constraints.txt; find src components pipelines -type f ! -name '*.pyc' | sort) | cksum | cut -d' ' -f1)

.PHONY: demo rollout-demo test check stop clean images

demo: $(VENV)/.demo-$(KEY)
	@$(VENV)/bin/python examples/fraud/fetch.py examples/fraud
	@$(VENV)/bin/python examples/fraud/train.py examples/fraud
	@$(VENV)/bin/trimgate run examples/fraud/optimize.yaml --serve

rollout-demo: $(VENV)/.demo-$(KEY)
	@$(VENV)/bin/python examples/fraud/fetch.py examples/fraud
	@$(VENV)/bin/python examples/fraud/train.py examples/fraud
	@$(VENV)/bin/python examples/rollout/story.py

stop: $(VENV)/.demo-$(KEY)
	@$(VENV)/bin/trimgate stop examples/fraud/optimize.yaml

# Files are shared out among so many processes.
WORKERS ?= 2

test: check
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 15

check: $(VENV)/.test-$(KEY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mypy

images:
	@images/build.sh

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("trimgate needs Python 3.11 to 3.13, such as: make PYTHON=python3.12 demo" if not (3, 11) <= sys.version_info < (3, 14) else 0)'
	@$(PYTHON) -m venv $(VENV)

# pip's output goes to a log, and is shown when it fails.
$(VENV)/.demo-$(KEY): | $(VENV)/bin/python
	@test -e $(VENV)/.test-$(KEY) || { echo "installing trimgate and what the demo needs into $(VENV)"; \
	  { $(PIP) install --upgrade pip && $(PIP) install -c constraints.txt -e '.[demo]'; } \
	  >$(VENV)/install.log 2>&1 || { tail -20 $(VENV)/install.log; exit 1; }; }
	@touch $@

$(VENV)/.test-$(KEY): | $(VENV)/bin/python
	@echo "installing trimgate and everything that the tests need into $(VENV) (a few minutes)"
	@{ $(PIP) install --upgrade pip && \
	  { $(VENV)/bin/python -c 'import torch' || \
	    $(PIP) install --retries 1 --timeout 20 --extra-index-url $(TORCH_INDEX) $(TORCH); } && \
	  $(PIP) install -c constraints.txt -e '.[test]'; } \
	  >$(VENV)/install.log 2>&1 || { tail -20 $(VENV)/install.log; exit 1; }
	@touch $@

clean:
	rm -rf $(VENV) build examples/*/*.parquet examples/*/*.npz examples/*/*.skops examples/*/*.safetensors examples/text/minilm
