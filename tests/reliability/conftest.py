"""One process that others are forked from, for all tests of this folder."""

import pytest

from tests.reliability.workers import Workers


@pytest.fixture(scope="session")
def workers(tmp_path_factory):
    workers = Workers(tmp_path_factory.mktemp("workers"))
    yield workers
    workers.close()
