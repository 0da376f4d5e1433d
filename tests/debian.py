"""Files of Debian packages that are unpacked and not installed: they may exclude each other, and need no root."""

import subprocess

import pytest


def unpack(package, folder):
    """Unpack the package of that name into the folder; skips where it cannot be had."""
    # As root apt wants to become another user, who may not write here.
    download = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package]
    try:
        subprocess.run(download, cwd=folder, check=True, capture_output=True, timeout=120)
        (archive,) = folder.glob(f"{package}_*.deb")
        subprocess.run(["dpkg", "-x", archive, folder], check=True, capture_output=True, timeout=120)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"cannot get Debian's package {package}: {error}")
    return folder
