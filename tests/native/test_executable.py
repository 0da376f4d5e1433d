"""What qmail-checkenv is made of: static, native, without Python, and carried by wheel and source tree alike."""

import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from conftest import HOOK

ROOT = Path(__file__).resolve().parents[2]


needs_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="looks for instructions of x86_64")

OLD_LMDB = "#define MDB_VERSION_MAJOR 0\n#define MDB_VERSION_MINOR 9\n#define MDB_VERSION_PATCH {}\n"


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def functions(file):
    """Name and code, with what is called by its name, of each function in an object or executable."""
    text = output("objdump", "-dr", "--no-show-raw-insn", str(file))
    return re.findall(r"^[0-9a-f]+ <(\S+)>:\n((?:.+\n)*)", text, re.MULTILINE)


def wanted(native):
    """What the object of the core wants of others."""
    return {line.split()[-1] for line in output("nm", "-u", str(native / "checkenv.o")).splitlines()}


def test_is_static_elf():
    assert HOOK.read_bytes()[:4] == b"\x7fELF"
    headers = output("readelf", "--wide", "--program-headers", str(HOOK))
    assert "LOAD" in headers
    assert "INTERP" not in headers
    # Loaded anywhere, it has a table for itself, in which no library is asked for.
    assert "NEEDED" not in output("readelf", "-dW", HOOK)


def test_has_nothing_of_python():
    content = HOOK.read_bytes()
    assert b"libpython" not in content
    assert re.search(rb"Py(Object|Err|Unicode|Exc|Init)_", content) is None


def link(tree, target):
    """Build the executable alone, from the sources in tree."""
    return subprocess.run([sys.executable, "setup.py", "-q", "build_native", "--build-scripts", str(target)],
                          cwd=tree, capture_output=True, text=True)


def copy_of_sources(folder):
    """All that the build reads."""
    copy = folder / "source"
    shutil.copytree(ROOT / "fastgrey", copy / "fastgrey", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("docs/man", "contrib"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture
def sources(tmp_path):
    """A copy of all that the build reads."""
    return copy_of_sources(tmp_path)


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    """The directory with what a build leaves: the object of the core, and the executable with its names."""
    folder = tmp_path_factory.mktemp("native")
    sources = copy_of_sources(folder)
    build = link(sources, folder)
    assert build.returncode == 0, build.stderr
    (linked,) = sources.glob("build/**/native/qmail-checkenv")
    return linked.parent


@pytest.fixture
def wheel(sources, tmp_path):
    """The wheel that the sources make."""
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
                    "--wheel-dir", str(tmp_path), str(sources)], check=True, capture_output=True)
    (made,) = tmp_path.glob("fastgrey-*.whl")
    return made


def test_link_has_no_python_symbol(native):
    names = [line.split()[-1] for line in output("nm", str(native / "qmail-checkenv")).splitlines()]
    assert "main" in names
    assert [name for name in names if name.startswith(("Py", "_Py", "__pyx_mstate", "__pyx_pymod"))] == []


def test_the_core_has_a_guard_on_its_stack(native):
    """What decide() is made of has it, and is in the executable; that LMDB has it, too, is no help to the core."""
    assert "__stack_chk_fail" in wanted(native)
    guarded = {name for name, code in functions(native / "qmail-checkenv") if "__stack_chk_fail" in code}
    assert len([name for name in guarded if name.startswith("__pyx_f_")]) >= 10, guarded


def test_the_core_calls_checked_functions(native):
    """_FORTIFY_SOURCE: where the compiler knows the size of a buffer and not that of what is copied there."""
    assert {"__memcpy_chk", "__read_chk"} & wanted(native), wanted(native)


@needs_x86
def test_the_core_touches_each_page_of_its_stack(native):
    """-fstack-clash-protection: a frame larger than a page is entered page by page (orq $0, (%rsp))."""
    steps = [name for name, code in functions(native / "checkenv.o") if re.search(r"\borq +\$0x0,\(%rsp\)", code)]
    assert steps


@needs_x86
def test_jumps_of_the_core_land_where_they_may(native):
    """-fcf-protection."""
    assert re.search(r"x86 feature:.*IBT.*SHSTK", output("readelf", "-nW", str(native / "checkenv.o")))


def test_the_executable_opens_nothing_through_a_link(native):
    """--wrap: LMDB's calls, too, go to the core, and nobody but the core's own function makes them."""
    code = [(name, code) for name, code in functions(native / "qmail-checkenv") if name.startswith(("mdb_", "__pyx_f_"))]
    assert [name for name, text in code if name.startswith("mdb_") and "<__wrap_open" in text]
    assert [name for name, text in code if re.search("<(__)?(libc_)?(open|openat|creat)(64)?(_2)?>", text)] == []


def test_build_refuses_a_core_that_is_not_pure(sources, tmp_path):
    """A Python constant in the core links, and would be NULL when the executable runs."""
    head = sources / "fastgrey" / "core" / "head.pxi"
    text = head.read_text()
    impure = text.replace("key.mv_data = <void *>name", 'key.mv_data = <void *>b"head"')
    assert impure != text
    head.write_text(impure)
    build = link(sources, tmp_path)
    assert build.returncode != 0
    assert "the executable refers to Python" in build.stderr
    assert not (tmp_path / "qmail-checkenv").exists()


def compiler(tmp_path, monkeypatch, refused):
    """A compiler that does not take what has this in it."""
    script = tmp_path / "compiler"
    script.write_text(f'#!/bin/sh\nfor word; do case $word in *{refused}*) echo "cannot: $word" >&2; exit 1;; esac\n'
                      'done\nexec cc "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))


def test_links_where_the_linker_takes_no_order(sources, tmp_path, monkeypatch):
    """As gold and mold, which know no such script."""
    compiler(tmp_path, monkeypatch, "order.ld")
    build = link(sources, tmp_path)
    assert build.returncode == 0, build.stderr
    assert "order.ld; a check takes some page faults more" in build.stdout
    assert output(tmp_path / "qmail-checkenv", "--version") == output(HOOK, "--version")


@pytest.mark.parametrize(("refused", "what"), [("static", "could not be linked"),
                                               ("checkenv.c", "could not be compiled")])
def test_build_that_fails_says_so_last(sources, tmp_path, monkeypatch, refused, what):
    compiler(tmp_path, monkeypatch, refused)
    build = link(sources, tmp_path)
    assert build.returncode != 0
    assert what in build.stderr.splitlines()[-1]
    assert "cannot: " in build.stderr
    assert "Traceback" not in build.stderr


def test_follows_no_link_by_way_of_open64(sources, make_store, tmp_path, monkeypatch):
    """What LMDB calls where it was built for large files on a machine of 32 bits."""
    library = Path(output("pkg-config", "--variable=libdir", "lmdb").strip())
    include = Path(output("pkg-config", "--variable=includedir", "lmdb").strip())
    for name in ("include", "lib"):
        (tmp_path / "lmdb" / name).mkdir(parents=True)
    shutil.copy(include / "lmdb.h", tmp_path / "lmdb" / "include")
    (archive,) = [path for path in (library / "liblmdb.a", *library.glob("*/liblmdb.a")) if path.exists()][:1]
    subprocess.run(["objcopy", "--redefine-sym", "open=open64", archive, tmp_path / "lmdb" / "lib" / "liblmdb.a"],
                   check=True)
    monkeypatch.setenv("FASTGREY_LMDB_PREFIX", str(tmp_path / "lmdb"))
    build = link(sources, tmp_path)
    assert build.returncode == 0, build.stderr
    generation = make_store() / "passed.000001"
    environment = {"FASTGREY_STORE": str(generation.parent), "TCPREMOTEIP": "192.0.2.1"}
    command = [tmp_path / "qmail-checkenv", "a@example.org", "b@example.net"]
    assert subprocess.run(command, env=environment).returncode == 111
    (generation / "data.mdb").rename(generation / "elsewhere")
    (generation / "data.mdb").symlink_to("elsewhere")
    told = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "a link stands where" in told.stderr


def test_wheel_carries_the_executable(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (script,) = [name for name in names if name.endswith(".data/scripts/qmail-checkenv")]
        assert archive.read(script)[:4] == b"\x7fELF"
        assert archive.getinfo(script).external_attr >> 16 & 0o111
        assert any(re.fullmatch(r"fastgrey/_core\..*\.so", name) for name in names)
        assert {"fastgrey/py.typed", "fastgrey/_core.pyi"} <= set(names)
        # Sources for qmail come along, those of Cython do not.
        assert [name for name in names if name.endswith(".c") and "/share/fastgrey/qmail/" not in name] == []


def test_man_finds_the_pages_of_an_installed_wheel(wheel, tmp_path):
    """By the path alone: man(1) looks in share/man beside each bin."""
    place = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    subprocess.run([sys.executable, "-m", "pip", "--quiet", "--python", str(place), "install", "--no-deps",
                    "--no-index", str(wheel)], check=True, capture_output=True)
    pages = sorted((ROOT / "docs" / "man").glob("*.[158]"))
    assert len(pages) >= 4
    environment = {"PATH": f"{place}/bin:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    for page in pages:
        section = page.suffix[1:]
        found = subprocess.run(["man", "-w", section, page.stem], env=environment, capture_output=True, text=True,
                               timeout=60)
        assert found.stdout.strip() == str(place / "share" / "man" / f"man{section}" / page.name), found.stderr
        assert Path(found.stdout.strip()).read_bytes() == page.read_bytes()


def test_version():
    assert re.fullmatch(r"qmail-checkenv \d+\.\d+\.\d+, LMDB 0\.9\.\d+.*\n", output(str(HOOK), "--version"))


@pytest.mark.parametrize(("patch", "content", "why"), [
    (23, b"", "older than 0.9.24"),
    (26, b"", "ITS#9278"),
    (31, b"", "ITS#9278"),
    (70, b"", "another file format"),
    (33, b"LMDB 0.9.24: pthread_mutex_consistent", "is not the LMDB 0.9.33"),
    (33, b"LMDB 0.9.33: ", "robust mutexes"),
])
def test_build_refuses_an_lmdb_that_is_not_safe(sources, tmp_path, monkeypatch, patch, content, why):
    prefix = tmp_path / "prefix"
    (prefix / "include").mkdir(parents=True)
    (prefix / "lib").mkdir()
    (prefix / "include" / "lmdb.h").write_text(OLD_LMDB.format(patch))
    (prefix / "lib" / "liblmdb.a").write_bytes(content)
    monkeypatch.setenv("FASTGREY_LMDB_PREFIX", str(prefix))
    build = link(sources, tmp_path)
    assert build.returncode != 0
    assert why in build.stderr
    assert "FASTGREY_LMDB_PREFIX" in build.stderr
    assert "Traceback" not in build.stderr


@pytest.mark.parametrize(("variable", "package"), [
    ("FASTGREY_LMDB_PREFIX", "liblmdb-dev"), ("FASTGREY_XXHASH_PREFIX", "libxxhash-dev"),
])
def test_build_names_both_remedies(sources, tmp_path, monkeypatch, variable, package):
    monkeypatch.setenv("PKG_CONFIG_LIBDIR", str(tmp_path))
    if variable == "FASTGREY_XXHASH_PREFIX":
        monkeypatch.setenv("FASTGREY_LMDB_PREFIX", "/usr")
    build = link(sources, tmp_path)
    assert build.returncode != 0
    assert f"apt-get install {package}" in build.stderr
    assert variable in build.stderr


def test_build_says_which_lmdb(sources, tmp_path):
    said = link(sources, tmp_path).stdout
    assert re.search(r"^fastgrey: LMDB 0\.9\.\d+ \(.*liblmdb\.a, by pkg-config\)$", said, re.M)
