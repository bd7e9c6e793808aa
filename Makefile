# One vocabulary, on a laptop and in CI.
.PHONY: check test build docs lowest

check:   ## formatting, lint, types
	ruff format --check .
	ruff check .
	mypy
	mypy benchmarks docs

test:    ## the whole suite
	pytest -n auto

lowest:  ## once more with the oldest supported Hub client and model libraries
	.ci/lowest-hub
	.ci/lowest-models

docs:    ## everything that is made by script: the JSON schema and the numbers in README
	python docs/make_schema.py
	python docs/make_readme.py
	python docs/make_names.py
	python docs/make_corruptions.py
	python docs/make_evidence.py
	python docs/make_speed.py
	python docs/make_reliability.py

build:   ## wheel and source archive, in dist/
	python -m build
