"""The process with pretended devices, started once; every test of this folder is marked `pretended`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pretended.library import why_not
from pretended.server import Server

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items) -> None:
    """Mark the tests of this folder, and skip them where nothing can be pretended."""
    reason = why_not()
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.pretended)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def pretended() -> Iterator[Server]:
    """The process in which cases are run."""
    server = Server()
    yield server
    server.close()


@pytest.fixture
def quiet_options(tiny_options, no_flushing):
    """Return a function from changes to the options of a run of 12 steps without dropout, every one logged."""

    def make(**changes):
        return tiny_options(**{"epochs": 2, "dropout": 0.0, "log_step": 1, "replace_inputs": 0.0, **changes})

    return make
