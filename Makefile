# The course from the command line. `make` alone lists what there is.
PROFILE ?= tiny
PYTHON  ?= python3
TORCH   ?= torch==2.13.0
STUDENT ?= student

BIN   := .venv/bin/python
READY := .venv/.a2lite-ready

# Nothing is fetched.
export HF_HUB_OFFLINE  ?= 1
export PYTHONUTF8      ?= 1

.PHONY: help env course test drill lab student clean

help:
	@echo "make course [PROFILE=tiny|laptop|a100]  every notebook headless; results in runs/PROFILE/index.html"
	@echo "make test     lint, tests, and every notebook against its committed outputs"
	@echo "make lab      JupyterLab on the course"
	@echo "make student  the course without its answers, in $(STUDENT)/"
	@echo "make drill    a training run killed at ten random steps: do the weights come out the same?"
	@echo "make env      the environment alone (.venv); TORCH='torch==...' chooses another build"
	@echo "make clean    removes what runs and builds left, keeps .venv"

env: $(READY)

$(READY): pyproject.toml
	test -x $(BIN) || $(PYTHON) -m venv .venv
	$(BIN) -m pip install --quiet $(TORCH)
	$(BIN) -m pip install --quiet -e ".[all]"
	@touch $@

course: env
	$(BIN) -m a2lite course --profile $(PROFILE)

# Two worker processes with one thread each beat one process with two on small tensors.
test: export OMP_NUM_THREADS ?= 1
test: env
	$(BIN) -m ruff check .
	$(BIN) -m pytest -q -n 2 --dist loadfile --nbval-lax --nbval-current-env tests notebooks

drill: env
	$(BIN) tests/drill.py 10

lab: env
	$(BIN) -m jupyter lab notebooks

student: env
	$(BIN) -m a2lite student --out $(STUDENT)

clean:
	rm -rf runs build *.egg-info .ruff_cache .pytest_cache
	find a2lite tests notebooks benchmarks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
