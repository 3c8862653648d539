VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
OUT := out/demo

.PHONY: help test test-slow lint format demo clean

help:
	@echo "make test       install into $(VENV) and run the fast tests"
	@echo "make test-slow  the slow ones"
	@echo "make lint       check style"
	@echo "make format     mend style"
	@echo "make demo       draw the example recordings"

$(VENV)/.installed: setup.py pyproject.toml constraints.txt
	test -x $(BIN)/python || python3 -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e ".[dev]"
	touch $@

# Drawing alone needs neither training nor tests.
$(VENV)/.drawing: setup.py pyproject.toml constraints.txt
	test -x $(BIN)/python || python3 -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e .
	touch $@

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 -m slow -v --durations=10

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: $(VENV)/.drawing
	$(BIN)/avgas generate examples/*.wav examples/*.ogg examples/*.flac --separate --out $(OUT)

clean:
	rm -rf $(VENV) build dist src/*.egg-info out
