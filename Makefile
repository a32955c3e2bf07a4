# Two commands do everything on a fresh machine: `make demo` and `make test`. Each makes its environment if it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.PHONY: demo test check evidence bench docs clean

demo: $(READY)
	$(BIN)/modicum compare digits

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2

check: $(READY)
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

evidence: $(READY)
	$(BIN)/modicum evidence --out docs/evidence.json

bench: $(READY) .venv-peers/.installed
	$(BIN)/python bench/run.py

# The peers of bench/, some of which need older packages than modicum; never needed to use or test modicum.
.venv-peers/.installed:
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --disable-pip-version-check \
		'pydvl==0.10.0' 'numpy<2' 'traker==0.3.2' 'kronfluence==1.0.1' 'torch==2.13.0' \
		'apricot-select==0.6.1' 'submodlib-py==0.0.3' 'datasketch==2.0.0'
	.venv-peers/bin/pip install --quiet --disable-pip-version-check --no-deps 'lightly==1.6.0'
	touch $@

docs: $(READY)
	$(BIN)/python docs/build.py

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(READY)

clean:
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache
