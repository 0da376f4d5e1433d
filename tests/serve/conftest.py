"""A server for each test that asks for one."""

import pytest

from serving import Server


@pytest.fixture
def serve(make_store, path, tmp_path):
    """Start a server on the store of the test, made if need be with settings of the command line; ended with the
    test."""
    started = []

    def begin(*assignments, ready=True, **options):
        if not path.exists():
            make_store(*assignments)
        server = Server(path, tmp_path, **options)
        started.append(server)
        return server.begun() if ready else server

    yield begin
    for server in started:
        server.end()
