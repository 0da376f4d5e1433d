"""Builds the extension module and the freestanding executable qmail-checkenv; all metadata is in pyproject.toml.

Where the C libraries come from: FASTGREY_LMDB_PREFIX and FASTGREY_XXHASH_PREFIX (directories with include/ and lib/),
then pkg-config, else the build stops. FASTGREY_DEFAULT_STORE sets the store the executable uses unasked.
"""

import os
import platform
import re
import subprocess
import sysconfig
import tomllib
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Command, Extension, setup
from setuptools.command.build import build
from setuptools.command.install import install
from setuptools.command.install_scripts import install_scripts

ROOT = Path(__file__).resolve().parent
EXECUTABLE = "qmail-checkenv"
OLDEST_LMDB = (0, 9, 24)


class Library:
    """Where a C library's header and static archive are, and how that was found out."""

    def __init__(self, name, module, header, variable, package):
        self.name = name
        prefix = os.environ.get(variable)
        if prefix:
            self.source = f"{variable}={prefix}"
            self.include = Path(prefix) / "include"
            self.lib = Path(prefix) / "lib"
        else:
            self.source = "pkg-config"
            self.include = self._ask(module, "includedir")
            self.lib = self._ask(module, "libdir")
        if self.include is None or not (self.include / header).exists():
            raise SystemExit(
                f"fastgrey: {name} not found ({header}, looked by {self.source}). Either install it so that pkg-config "
                f"finds it (Debian: apt-get install {package} pkg-config), or set {variable} to the directory that "
                f"has include/{header}."
            )
        self.header = self.include / header
        self.text = self.header.read_text(errors="replace")

    @staticmethod
    def _ask(module, variable):
        try:
            answer = subprocess.run(
                ["pkg-config", f"--variable={variable}", module], capture_output=True, text=True, check=True
            ).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None
        return Path(answer) if answer else None

    def macro(self, name):
        return re.search(rf"#define\s+{name}\s+(\d+)", self.text)[1]


def find_lmdb():
    """LMDB, refused where the hook could not run safely on it."""
    lmdb = Library("LMDB", "lmdb", "lmdb.h", "FASTGREY_LMDB_PREFIX", "liblmdb-dev")
    version = tuple(int(lmdb.macro(f"MDB_VERSION_{part}")) for part in ("MAJOR", "MINOR", "PATCH"))
    shown = ".".join(map(str, version))
    remedy = "Set FASTGREY_LMDB_PREFIX to the prefix of a good one: 0.9.24, 0.9.25, or 0.9.32 and later 0.9 releases."
    archives = [lmdb.lib / "liblmdb.a"] if lmdb.lib else []
    archives += sorted(lmdb.lib.glob("*/liblmdb.a")) if lmdb.lib and lmdb.lib.exists() else []
    archive = next((path for path in archives if path.exists()), None)
    if archive is None:
        raise SystemExit(
            f"fastgrey: no liblmdb.a under {lmdb.lib}; the executable is linked statically. Install the static "
            "library (Debian: apt-get install liblmdb-dev), or set FASTGREY_LMDB_PREFIX to a prefix with lib/liblmdb.a."
        )
    if version < OLDEST_LMDB:
        raise SystemExit(f"fastgrey: LMDB {shown} is older than 0.9.24, the oldest it is tested with. {remedy}")
    if (0, 9, 26) <= version <= (0, 9, 31):
        raise SystemExit(
            f"fastgrey: LMDB {shown} destroys the locks that processes share when one of them closes (ITS#9278, undone "
            f"in 0.9.32 by ITS#10095); hooks that come and go all the time cannot use it. {remedy}"
        )
    if version >= (0, 9, 70):
        raise SystemExit(f"fastgrey: LMDB {shown} has another file format than 0.9. {remedy}")
    content = archive.read_bytes()
    if f"LMDB {shown}:".encode() not in content:
        raise SystemExit(f"fastgrey: {archive} is not the LMDB {shown} of {lmdb.header}. {remedy}")
    if b"pthread_mutex_consistent" not in content:
        raise SystemExit(
            f"fastgrey: {archive} was built without robust mutexes; a hook killed at the wrong moment would stop all "
            f"others. {remedy}"
        )
    lmdb.archive = archive
    print(f"fastgrey: LMDB {shown} ({archive}, by {lmdb.source})", flush=True)
    return lmdb


def find_xxhash():
    """xxHash; only its header is used."""
    xxhash = Library("xxHash", "libxxhash", "xxhash.h", "FASTGREY_XXHASH_PREFIX", "libxxhash-dev")
    shown = ".".join(xxhash.macro(f"XXH_VERSION_{part}") for part in ("MAJOR", "MINOR", "RELEASE"))
    if tuple(map(int, shown.split("."))) < (0, 8, 0):
        raise SystemExit(
            f"fastgrey: xxHash {shown} has no stable XXH3. Set FASTGREY_XXHASH_PREFIX to the prefix of 0.8.0 or later."
        )
    print(f"fastgrey: xxHash {shown} ({xxhash.header}, by {xxhash.source})", flush=True)
    return xxhash


LMDB = find_lmdb()
XXHASH = find_xxhash()
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
INCLUDES = [str(LMDB.include), str(XXHASH.include)]
# Sources that a pyx file is assembled from: without them a change to one would not be built.
PARTS = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "fastgrey").glob("*/*.p[xy][id]"))]
ORDER = ROOT / "fastgrey" / "order.ld"
# docs/security.md has what each costs. Control flow protection is of x86 only.
HARDENED = ["-fstack-protector-strong", "-fstack-clash-protection", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=3"]
if platform.machine() in ("x86_64", "i686"):
    HARDENED.append("-fcf-protection")
CYTHON = {"include_path": [str(ROOT)], "language_level": 3}


def shared_files():
    """What goes below share/ of the environment: files that people copy elsewhere, and pages where man(1) looks."""
    contrib = ROOT / "contrib"
    folders = {f"share/fastgrey/{path.parent.relative_to(contrib)}": path.parent
               for path in sorted(contrib.rglob("*")) if path.is_file() and path.parent.name != "demo"}
    for target, folder in folders.items():
        yield target, [str(path.relative_to(ROOT)) for path in sorted(folder.iterdir()) if path.is_file()]
    for section in (1, 5, 8):
        yield f"share/man/man{section}", [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob(f"docs/man/*.{section}"))]


class BuildNative(Command):
    """Link qmail-checkenv: cythonized like the extension, static, without Python.

    The link is the test of that: --gc-sections drops what main does not reach, and whatever of Python is still wanted
    then is an undefined symbol.
    """

    description = "build the freestanding executable"
    user_options = [("build-scripts=", None, "directory for the executable")]
    editable_mode = False

    def initialize_options(self):
        self.build_scripts = None
        self.build_temp = None

    def finalize_options(self):
        self.set_undefined_options("build", ("build_scripts", "build_scripts"), ("build_temp", "build_temp"))

    def run(self):
        work = Path(self.build_temp) / "native"
        work.mkdir(parents=True, exist_ok=True)
        module = Extension("fastgrey.checkenv", ["fastgrey/checkenv.pyx"], depends=PARTS)
        source = cythonize([module], build_dir=str(work), **CYTHON)[0].sources[0]
        compiler = os.environ.get("CC", "cc").split()
        flags = os.environ.get("CFLAGS", "-O2 -g").split()
        define = [f'-DFASTGREY_VERSION="{VERSION}"']
        if os.environ.get("FASTGREY_DEFAULT_STORE"):
            define.append(f'-DFASTGREY_DEFAULT_STORE="{os.environ["FASTGREY_DEFAULT_STORE"]}"')
        python = [f"-I{sysconfig.get_path(name)}" for name in ("include", "platinclude")]
        # A C library may come without what a static executable needs to be loaded anywhere.
        ask = [*compiler, "-print-file-name=rcrt1.o"]
        start = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
        position, link = (("-fPIE", ["-static-pie"]) if os.path.isabs(start) else ("-fno-pie", ["-static", "-no-pie"]))
        target = Path(self.build_scripts) / EXECUTABLE
        target.parent.mkdir(parents=True, exist_ok=True)
        compile_command = [
            # Inlined into its only caller, a step that is not taken still adds its buffers to the stack frame, and what
            # is called from there touches other pages: 36 page faults a check instead of 38.
            *compiler, *flags, "-fno-inline-functions-called-once",
            "-fvisibility=hidden", "-ffunction-sections", "-fdata-sections", *HARDENED, position, *define,
            *(f"-I{path}" for path in INCLUDES), *python, "-c", str(source), "-o", str(work / "checkenv.o"),
        ]
        link_command = [
            *compiler, *os.environ.get("LDFLAGS", "").split(), *link, "-Wl,--gc-sections",
            # What is written at start only is then for reading only (docs/security.md). Otherwise few segments: each is
            # a map to make and to tear down (docs/design.md).
            "-Wl,-z,relro,-z,now,-z,noexecstack,-z,noseparate-code",
            # No file is opened through a link, by LMDB either (core/straight.pxi).
            "-Wl,--wrap=open,--wrap=open64",
            str(work / "checkenv.o"), str(LMDB.archive), "-lpthread", "-o", str(work / EXECUTABLE),
        ]
        self._run("compiled", compile_command, "the compiler's words are above")
        # What a check touches lies side by side: eight page faults fewer. Not every linker knows
        # such a script, and it is worth no more than that.
        ordered = [*link_command, f"-Wl,-T,{ORDER}"]
        self.announce(" ".join(ordered), level=2)
        if subprocess.run(ordered, stderr=subprocess.DEVNULL).returncode != 0:
            self._run("linked", link_command, "the linker's words are above; GNU ld, lld and mold are known to link "
                      "it: LDFLAGS=-fuse-ld=bfd")
            print("fastgrey: this linker does not take fastgrey/order.ld; a check takes some page faults more",
                  flush=True)
        self._refuse_python(work / EXECUTABLE)
        subprocess.run(["strip", "-o", str(target), str(work / EXECUTABLE)], check=True)
        target.chmod(0o755)

    def _run(self, what, command, remedy):
        self.announce(" ".join(command), level=2)
        if subprocess.run(command).returncode != 0:
            raise SystemExit(f"fastgrey: {EXECUTABLE} could not be {what}; {remedy}")

    @staticmethod
    def _refuse_python(executable):
        """Python constants are pointers that only module initialisation fills: they link, and are NULL."""
        symbols = subprocess.run(["nm", str(executable)], capture_output=True, text=True, check=True).stdout
        python = [line.split()[-1] for line in symbols.splitlines() if re.search(r"\bPy|__pyx_mstate|pyx_string", line)]
        if python:
            raise SystemExit(f"fastgrey: the executable refers to Python ({', '.join(python[:5])}); keep the core pure")

    def get_source_files(self):
        return ["fastgrey/checkenv.pyx", "fastgrey/order.ld", *PARTS]

    def get_outputs(self):
        return [str(Path(self.build_scripts) / EXECUTABLE)]

    def get_output_mapping(self):
        return {}


class Build(build):
    sub_commands = [*build.sub_commands, ("build_native", None)]


class Install(install):
    sub_commands = [(name, None if name == "install_scripts" else test) for name, test in install.sub_commands]


class InstallScripts(install_scripts):
    def run(self):
        super().run()
        # Setuptools copies the scripts it knows by name, and would read a binary as text.
        target = Path(self.install_dir) / EXECUTABLE
        self.mkpath(str(target.parent))
        self.copy_file(str(Path(self.build_dir) / EXECUTABLE), str(target))
        self.outfiles.append(str(target))


core = Extension(
    "fastgrey._core",
    ["fastgrey/_core.pyx"],
    include_dirs=INCLUDES,
    depends=PARTS,
    libraries=["lmdb"],
    library_dirs=[str(LMDB.archive.parent)],
    runtime_library_dirs=[str(LMDB.archive.parent)] if LMDB.source != "pkg-config" else [],
)

setup(
    ext_modules=cythonize([core], build_dir="build", **CYTHON),
    data_files=list(shared_files()),
    cmdclass={"build": Build, "build_native": BuildNative, "install": Install, "install_scripts": InstallScripts},
)
