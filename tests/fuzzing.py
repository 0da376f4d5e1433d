"""Fuzz targets on the core: building them, their corpora, running them.

A target is a function of tests/fuzz/targets.pyx. With clang it is built for libFuzzer, which makes inputs up; with any
compiler that has sanitizers it is built to run the inputs of its corpus. A corpus is a text file of
tests/fuzz/corpora/: an input a line, as a bytes literal of Python; lines that begin with # are comments.
"""

import ast
import ctypes
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FUZZ = ROOT / "tests" / "fuzz"
# In the order of the core, from texts to whole stores.
TARGETS = ("address", "client", "envelope", "pattern", "policy", "record", "caller", "log", "reply", "exchange", "asked",
           "table")
SANITIZERS = "address,undefined"
# What only module initialisation uses must not be watched: a watch is a use, and the link would want Python for it.
PYTHONS = "fun:PyInit_*\nfun:__pyx_pymod_*\nfun:__Pyx_*\nfun:Py_*\nfun:_Py_*\n"
PYTHONS_DATA = "global:__pyx_moduledef*\nglobal:__pyx_methods*\n"
# A report names its lines; a table's allocations that LMDB was interrupted in are lost, and are no leak of the core.
REPORTS = {"ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:allocator_may_return_null=1",
           "UBSAN_OPTIONS": "print_stacktrace=1"}


UNWATCHED = ("memcpy", "memmove", "memset", "memcmp", "malloc", "calloc", "realloc", "free", "strdup")


def clang():
    """The compiler with libFuzzer; None where it or its run-time library is missing."""
    found = shutil.which("clang")
    if found is None:
        return None
    runtime = subprocess.run([found, "-print-runtime-dir"], capture_output=True, text=True).stdout.strip()
    libraries = [*Path(runtime).glob("libclang_rt.fuzzer*.a"), *Path(runtime).parent.glob("*/libclang_rt.fuzzer*.a")]
    return found if libraries else None


def library(module, variable, prefix):
    """What pkg-config says of a C library, unless a prefix is set for it as for the build of the product."""
    if os.environ.get(prefix):
        return str(Path(os.environ[prefix]) / {"includedir": "include", "libdir": "lib"}[variable])
    return subprocess.run(["pkg-config", f"--variable={variable}", module], capture_output=True, text=True,
                          check=True).stdout.strip()


def cythonize(folder, tree=ROOT):
    """The targets as C, with the core of that tree."""
    source = folder / "targets.c"
    cython = [sys.executable, "-m", "cython", "-3", "--line-directives", f"-I{tree}", f"-I{tree / 'tests' / 'fuzz'}",
              str(tree / "tests" / "fuzz" / "targets.pyx"), "-o", str(source)]
    subprocess.run(cython, check=True, cwd=tree, capture_output=True)
    return source


def unwatched_lmdb(folder):
    """LMDB's archive, its copying and allocating out of the sanitizers' sight (tests/fuzz/lmdb_guard.h): on damaged
    pages it goes wrong, and is not the core."""
    archive = folder / "liblmdb.a"
    names = [part for name in UNWATCHED for part in ("--redefine-sym", f"{name}=guard_{name}")]
    subprocess.run(["objcopy", *names, Path(library("lmdb", "libdir", "FASTGREY_LMDB_PREFIX")) / "liblmdb.a", archive],
                   check=True)
    return archive


def compile_targets(compiler, source, target, *flags):
    """Compile and link, with the C library's lmdb; fails with what the compiler says."""
    includes = [library("lmdb", "includedir", "FASTGREY_LMDB_PREFIX"),
                library("libxxhash", "includedir", "FASTGREY_XXHASH_PREFIX"), str(FUZZ), str(FUZZ.parents[1]),
                sysconfig.get_path("include"), sysconfig.get_path("platinclude")]
    done = subprocess.run(
        [*compiler, "-w", "-O1", "-g", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all", "-fvisibility=hidden",
         "-DCYTHON_NO_PYINIT_EXPORT", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", *flags,
         *(f"-I{path}" for path in includes), str(source),
         str(unwatched_lmdb(target.parent)), "-lpthread", "-o", str(target)],
        capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return target


def build_fuzzer(folder, source):
    """The targets under libFuzzer, with what llvm-cov needs to tell lines."""
    (folder / "functions").write_text(PYTHONS)
    (folder / "data").write_text(PYTHONS_DATA)
    return compile_targets([clang()], source, folder / "fuzz", f"-fsanitize=fuzzer,{SANITIZERS}",
                           f"-fsanitize-coverage-ignorelist={folder / 'functions'}",
                           f"-fsanitize-ignorelist={folder / 'data'}", "-fprofile-instr-generate",
                           "-fcoverage-mapping")


def build_replay(folder, source):
    """The targets with a main that runs the files it is given."""
    return compile_targets(os.environ.get("CC", "cc").split(), source, folder / "replay", f"-fsanitize={SANITIZERS}",
                           "--param", "asan-globals=0", str(FUZZ / "replay.c"))


def read_corpus(target):
    """The inputs of a target's corpus."""
    file = FUZZ / "corpora" / f"{target}.txt"
    lines = file.read_text().splitlines() if file.exists() else []
    return [ast.literal_eval(line) for line in lines if line and not line.startswith("#")]


def unpack(target, folder):
    """A target's corpus as files, an input each, named by their lines; gives the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, content in enumerate(read_corpus(target), 1):
        files.append(folder / f"{number:04}")
        files[-1].write_bytes(content)
    return files


def run(program, target, *arguments, timeout=600, env=None):
    """Run a target; gives the finished process, what it said in stderr and stdout together."""
    environment = {"PATH": os.environ["PATH"], "FUZZ_TARGET": target, "TMPDIR": str(program.parent),
                   "LLVM_PROFILE_FILE": "/dev/null", **REPORTS, **(env or {})}
    return subprocess.run([program, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env=environment, text=True, errors="replace", timeout=timeout, cwd=program.parent,
                          preexec_fn=_without_chance)


def _without_chance():
    """Where the kernel draws addresses from many bits, a map now and then lies where the sanitizer's shadow must be."""
    ctypes.CDLL(None).personality(0x0040000)


def figures(said):
    """Executions, coverage and features of a run of libFuzzer."""
    last = re.findall(r"#(\d+)\s+(?:DONE|INITED|NEW|REDUCE|pulse)\s+cov: (\d+) ft: (\d+)", said)[-1]
    return dict(zip(("executions", "coverage", "features"), map(int, last), strict=True))
