"""The core with loops of C around it (core_bench.pyx): built when first wanted, and again when its sources changed."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from Cython.Build import cythonize
from setuptools import Distribution, Extension

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PLACE = ROOT / "build" / "bench"
NAME = "core_bench"


def _build() -> None:
    lmdb, xxhash = (os.environ.get(f"FASTGREY_{name}_PREFIX") for name in ("LMDB", "XXHASH"))
    include = [f"{prefix}/include" for prefix in (lmdb, xxhash) if prefix]
    library = [f"{lmdb}/lib"] if lmdb else []
    # As the extension of the package is built: the flags of this Python, and the shared library.
    module = Extension(NAME, [str(HERE / f"{NAME}.pyx")], include_dirs=include, libraries=["lmdb"],
                       library_dirs=library, runtime_library_dirs=library,
                       depends=[str(path) for path in _sources()])
    distribution = Distribution({"ext_modules": cythonize(  # type: ignore[no-untyped-call]
        [module], build_dir=str(PLACE), include_path=[str(ROOT)], language_level=3, quiet=True)})
    command = distribution.get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(PLACE), str(PLACE / "temp")
    command.ensure_finalized()
    command.run()


def _sources() -> list[Path]:
    return [HERE / f"{NAME}.pyx", *sorted((ROOT / "fastgrey").glob("*/*.p[xy][id]"))]


def _built() -> Path | None:
    found = sorted(PLACE.glob(f"{NAME}*.so"))
    newest = max(path.stat().st_mtime for path in _sources())
    return found[0] if found and found[0].stat().st_mtime > newest else None


def load() -> Any:
    """The module core_bench. What the compiler says is shown where it fails."""
    if NAME in sys.modules:
        return sys.modules[NAME]
    if _built() is None:
        # In a process of its own: setuptools writes where it likes.
        done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, cwd=ROOT)
        if done.returncode != 0:
            raise SystemExit(f"bench: cannot build {NAME}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    path = _built()
    spec = importlib.util.spec_from_file_location(NAME, path) if path else None
    if spec is None or spec.loader is None:
        raise SystemExit(f"bench: {NAME} was built, but not into {PLACE}")
    module = sys.modules[NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    PLACE.mkdir(parents=True, exist_ok=True)
    _build()
