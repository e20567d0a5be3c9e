"""The whole files that fuzzing spoils."""

from pathlib import Path

import pytest

from tests.fuzz.seeds import make_seeds


@pytest.fixture(scope="session")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeds")
    make_seeds(folder)
    return folder
