"""Runs a file of pytest-benchmark cases inside a module of the suite.

A case takes the fixtures `benchmark`, `results` and `profile`, and adds what `figures.beside` makes to the results.
"""

from pathlib import Path

import pytest

from figures import Results


class _Fixtures:
    def __init__(self, results: Results) -> None:
        self._results = results

    @pytest.fixture
    def results(self) -> Results:
        return self._results

    @pytest.fixture
    def profile(self) -> str:
        return self._results.profile


def run(file: Path, results: Results) -> None:
    """Run the cases of a file; the first that fails ends the module."""
    # The configuration of the tests is not meant for these.
    options = ["-q", "-x", "--no-header", "-c", "/dev/null", "--rootdir", str(file.parent), "-p", "no:cacheprovider",
               "-s", "--import-mode=importlib", "-o", "python_files=*.py", "-o", "python_functions=case_*",
               "--benchmark-disable-gc", "--benchmark-quiet"]
    if pytest.main([*options, str(file)], plugins=[_Fixtures(results)]) != 0:
        raise SystemExit(f"bench: a case of {file.name} failed")
