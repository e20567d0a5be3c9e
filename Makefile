# make demo    the main job on sample photographs, after setting up .venv
# make test    the tests
# make lint    ruff and pyright
# make bench   the benchmarks
# make fuzz    10,000 damaged and hostile files through every reader
# make kill    a folder's upscale, killed 100 times at random (about 5 minutes)
# make device  the C runner for phones, both processors
# make arm64   emulated ARM64 cores for the engine arm64, without root (Debian or Ubuntu)
# make clean   removes .venv, runs/ and build/

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint bench fuzz kill device arm64 lock clean

demo: $(READY)
	$(BIN)/python -m runtime.demo

test: $(READY)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: $(READY)
	$(BIN)/python -m benchmarks.export
	$(BIN)/python -m benchmarks.train
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.upscale
	$(BIN)/python -m benchmarks.zoo

fuzz: $(READY)
	$(BIN)/python -m tests.fuzz

kill: $(READY)
	$(BIN)/python -m benchmarks.kill_upscale --kills 100

device: $(READY)
	$(BIN)/python -m runtime.device.build --abi arm64-v8a
	$(BIN)/python -m runtime.device.build --abi x86_64

arm64: $(READY)
	$(BIN)/python -m runtime.arm64.setup

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
		|| { echo "error: expected Python 3.11, found $$($(PYTHON) --version): install it, or run make PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --progress-bar on -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# pins what a fresh environment resolves to; nvidia's, triton's and tensorflow-cpu's packages are for Linux on x86-64 only
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet '.[dev]'
	{ echo "# Python 3.11 on Linux; made by \`make lock\` from pyproject.toml's extra \`dev\`."; \
	  build/lock/bin/pip freeze --all | grep -vE '^(pip|pocketsr)\b| @ ' \
	  | sed -E '/^(nvidia-|cuda-|triton|tensorflow_cpu)/ s/$$/ ; sys_platform == "linux" and platform_machine == "x86_64"/'; } > requirements.lock

clean:
	rm -rf $(VENV) runs build .pytest_cache .ruff_cache .hypothesis *.egg-info
