"""Fixtures of the tests that take something away from the store."""

import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The library that counts calls and makes them fail."""
    target = tmp_path_factory.mktemp("fault") / "fault.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", target, Path(__file__).with_name("fault.c"), "-ldl"],
                   check=True)
    return target
