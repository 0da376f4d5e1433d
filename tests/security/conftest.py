"""A store whose group has a member who means harm, and a file outside that must stay what it is."""

import os
import subprocess

import pytest
from machine import open_the_way
from planted import GROUP, Victim

import fastgrey
from conftest import FASTGREY, HOOK


@pytest.fixture
def victim(tmp_path):
    """What is not the store's."""
    return Victim(tmp_path / "outside")


@pytest.fixture(scope="session")
def shared_template(tmp_path_factory):
    """A store of root and a group: a stranger, a known sender, a policy with a rule, two generations; and a backup."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "fastgrey.toml").write_text('delay = "1s"\nallow_clients = ["203.0.113.0/24"]\n')
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "FASTGREY_STORE": str(folder / "store"),
                   "FASTGREY_CONFIG": str(folder / "fastgrey.toml")}
    fastgrey.create(folder / "store", group=GROUP)
    for words in (["apply"], ["pass", "192.0.2.1", "known@example.org", "b@example.net"],
                  ["compact"], ["backup", str(folder / "saved")]):
        subprocess.run([FASTGREY, *words], env=environment, check=True, capture_output=True)
    subprocess.run([HOOK, "a@example.org", "b@example.net"], env=environment | {"TCPREMOTEIP": "192.0.2.9"},
                   capture_output=True)
    return folder


@pytest.fixture
def shared_store(shared_template, path, tmp_path):
    """A copy of it for one test."""
    open_the_way(tmp_path)
    subprocess.run(["cp", "-a", shared_template / "store", path], check=True)
    return path
