# make demo    race three methods on 4 local processes and draw the result
# make test    the whole test suite
# make check   lint, types, tests: what CI runs

BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test lint types check clean

demo: $(INSTALLED)
	@$(BIN)/run-experiment -m experiment=demo algorithm=allreduce,dpsgd,sgp seed=0,1 launcher=local device=cpu
	@$(BIN)/experiments table demo
	@$(BIN)/experiments plot demo

test: $(INSTALLED)
	@$(BIN)/python -m pytest

lint: $(INSTALLED)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(INSTALLED)
	@$(BIN)/mypy

check: lint types test

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(INSTALLED): pyproject.toml constraints.txt scripts/install.sh
	@sh scripts/install.sh
