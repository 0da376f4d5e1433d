# make demo   the main job, shown            make test   all tests
# make build  .venv with fastgrey and qmail-checkenv
# make bench  all benchmarks, two minutes; PROFILE=full for the record, MODULES='hook rules' some of them
# make bench-packages  what it also measures beside: postgrey and others
# make bench-report  docs/benchmarks.md and its plots, from docs/benchmarks.json
# make clean  all of the above undone
# make torture EFFORT=20   the tests that try at random, kill and fuzz, twenty times as long; ONLY=kill some of them
# make pages  the documents that follow from the code: docs/configuration.md, docs/man/

PYTHON ?= python3.11
EFFORT ?= 20
PROFILE ?= quick
RESULTS ?= build/bench.json
VENV = .venv
PACKAGES = gcc libc6-dev binutils pkg-config liblmdb-dev libxxhash-dev python3-dev python3-venv
# Of tcpserver and of mail servers there are several, which exclude each other; a machine keeps the one it has.
TEST_PACKAGES = daemontools groff iproute2 man-db mandoc patch postgresql redis-sentinel redis-server runit s6 strace swaks systemd \
	$(if $(shell command -v tcpserver),,ucspi-tcp-ipv6) $(if $(wildcard /usr/sbin/sendmail),,postfix)
# What Debian's Exim needs, which is unpacked and not installed: it excludes Postfix.
EXIM_PACKAGES = libdb5.3 libgnutls-dane0 libidn12 libidn2-0 libnsl2 libnss-wrapper libpcre2-8-0
EXIM_DOWNLOAD = apt-get -q -o APT::Sandbox::User=root download exim4-daemon-light
# For the fuzzers, and for benchmarks beside others.
TORTURE_PACKAGES = clang libclang-rt-dev llvm
BENCH_PACKAGES = postgrey gross sqlgrey libdbd-sqlite3-perl greylistd postgresql redis-server
SOURCES = pyproject.toml setup.py $(shell find fastgrey -name '*.py' -o -name '*.pyx' -o -name '*.px[di]' -o -name '*.ld')
PIP = $(VENV)/bin/pip --disable-pip-version-check install --quiet

.PHONY: build demo test torture bench bench-report pages packages test-packages exim torture-packages bench-packages clean

build: $(VENV)/built

demo: build
	$(VENV)/bin/python contrib/demo/demo.py

test: build test-packages exim $(VENV)/test-tools
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

ifneq ($(filter torture,$(MAKECMDGOALS)),)
ifneq ($(shell printf '%s' '$(EFFORT)' | grep -cx '[1-9][0-9]*'),1)
$(error EFFORT is '$(EFFORT)'; it is a whole number from 1 on, as in: make torture EFFORT=20)
endif
endif

torture: build test-packages exim torture-packages $(VENV)/test-tools
	rm -f build/tried.jsonl && mkdir -p build
	FASTGREY_EFFORT=$(EFFORT) FASTGREY_TRIED=$(CURDIR)/build/tried.jsonl \
		$(VENV)/bin/python -m pytest -m torture $(if $(ONLY),-k '$(ONLY)') $(PYTEST_ARGS)

bench: build $(VENV)/bench-tools
	$(VENV)/bin/python bench/suite.py --profile $(PROFILE) --json $(RESULTS) $(MODULES)

bench-report: build $(VENV)/bench-tools
	$(VENV)/bin/python bench/report.py

pages: build
	$(VENV)/bin/fastgrey config describe --markdown >docs/configuration.md
	$(VENV)/bin/python docs/man/pages.py

# Nothing is asked: where packages are missing, root gets them and anybody else is told.
define install_missing
	@command -v dpkg-query >/dev/null || { echo "no Debian: make sure of $(1)"; exit 0; }; \
	missing=; for name in $(1); do \
		dpkg-query -W -f '$${Status}' $$name 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$name"; \
	done; \
	test -z "$$missing" && exit 0; \
	if [ "$$(id -u)" != 0 ]; then \
		echo "missing Debian packages; as root, run: apt-get install$$missing" >&2; exit 1; \
	fi; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get -q -y update && apt-get -q -y install --no-install-recommends $$missing
endef

packages:
	$(call install_missing,$(PACKAGES))

# Without starting their services.
test-packages bench-packages: export RUNLEVEL = 1
test-packages:
	$(call install_missing,$(TEST_PACKAGES))

# Where it cannot be had its tests are skipped.
exim: build/exim/usr/sbin/exim4

build/exim/usr/sbin/exim4:
	$(call install_missing,$(EXIM_PACKAGES))
	mkdir -p build/exim
	-cd build/exim && rm -f *.deb && { $(EXIM_DOWNLOAD) || { apt-get -q -y update && $(EXIM_DOWNLOAD); }; } && \
		dpkg -x *.deb . && chmod u-s usr/sbin/exim4

torture-packages:
	$(call install_missing,$(TORTURE_PACKAGES))

bench-packages:
	$(call install_missing,$(BENCH_PACKAGES))

$(VENV)/bin/pip: | packages
	$(PYTHON) -m venv $(VENV)

$(VENV)/built: $(SOURCES) | packages $(VENV)/bin/pip
	$(PIP) 'setuptools>=77,<90' 'Cython>=3.1,<4' wheel
	$(PIP) --no-build-isolation --editable '.[server]'
	@$(VENV)/bin/qmail-checkenv --version
	@touch $@

$(VENV)/test-tools: pyproject.toml | $(VENV)/built
	$(PIP) --no-build-isolation --editable '.[server,test,bench]'
	@touch $@

$(VENV)/bench-tools: pyproject.toml | $(VENV)/built
	$(PIP) --no-build-isolation --editable '.[server,bench]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info fastgrey/*.so
