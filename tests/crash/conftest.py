"""Fixtures of the tests that take something away from the store."""

import pytest

import interposer


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The library that counts calls and makes them fail."""
    return interposer.build(tmp_path_factory.mktemp("fault") / "fault.so")
