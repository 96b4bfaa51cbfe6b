# make install make .venv with distsgd and its tools in it
# make demo    race three methods on 4 local processes, then four on 32 virtual nodes of 8 GPUs, and draw the results
# make test    the whole test suite
# make check   lint, types, tests: what CI runs

BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: install demo test lint types check clean

demo: $(INSTALLED)
	@$(BIN)/run-experiment -m experiment=demo algorithm=allreduce,dpsgd,sgp seed=0,1 launcher=local device=cpu
	@$(BIN)/experiments table demo
	@$(BIN)/experiments plot demo
	@$(BIN)/run-experiment -m experiment=demo_virtual algorithm=allreduce,dpsgd,sgp nodes=4,8,16,32 device=cpu
	@$(BIN)/run-experiment -m experiment=demo_virtual algorithm=sgp algorithm.overlap=1 nodes=4,8,16,32 device=cpu
	@$(BIN)/experiments table demo_virtual --where nodes=32
	@$(BIN)/experiments plot demo_virtual --where nodes=32 --x time
	@$(BIN)/experiments plot demo_virtual --x nodes

install: $(INSTALLED)

test: $(INSTALLED)
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

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
