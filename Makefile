# make demo: see it work.   make test: see that it works.   Both install what they need into .venv first.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= default
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH_INDEX_cpu := --index-url https://download.pytorch.org/whl/cpu

.PHONY: setup demo test check format bench gpu-proof mlflow clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; found $$($(PYTHON) --version). Try: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.12"; exit 2; }
	@echo "Installing into $(VENV); a few minutes, once."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "python -m venv failed; on Debian and Ubuntu: apt install python3-venv"; exit 2; }
	@$(BIN)/python -c 'import torch' 2>/dev/null || \
	  $(BIN)/pip install --disable-pip-version-check $(TORCH_INDEX_$(TORCH)) $$(grep '^torch==' constraints.txt)
	@echo "PyTorch is there; now the other packages."
	@$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/parallax demo

test: $(STAMP)
	$(BIN)/python -m pytest $(TESTS)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --numprocesses auto --dist loadfile -m "not slow"

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# litgpt and lightning, which it imports, pin older packages than ours; as a peer they only have to run.
bench: $(STAMP)
	@$(BIN)/python -c 'import litgpt.model' 2>/dev/null || $(BIN)/pip install --disable-pip-version-check -q --no-deps \
	  litgpt==0.5.13 lightning==2.6.6 lightning-utilities==0.15.3 torchmetrics==1.9.0
	$(BIN)/python -m evaluation.bench

# What only CUDA GPUs can show; docs/GPU.md. On a CPU: make gpu-proof GPU_PROOF='--device cpu --quick'
gpu-proof: $(STAMP)
	$(BIN)/python -m evaluation.gpu_proof $(GPU_PROOF)

# An MLflow server over a PostgreSQL cluster of its own; docs/mlflow-server.md.   make mlflow PORT=5001 MLFLOW_FOLDER=/srv/mlflow
PORT ?= 5000
MLFLOW_FOLDER ?= runs/mlflow-server
mlflow: $(STAMP)
	@exec $(BIN)/python -m launch.tracking --port $(PORT) --folder $(MLFLOW_FOLDER) $(if $(MLFLOW),-- $(MLFLOW))

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
