"""One pool of workers and one undisturbed run for all sweeps, and the ledger of what held."""

import json
import os
import time
from pathlib import Path

import pytest

from reliability.harness import Pool, contents, make_tiny_run


@pytest.fixture(scope="session")
def pool(warm_python):
    """The workers that fork a train.py for each trial."""
    pool = Pool(warm_python)
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> list[str]:
    """The command line of the tiny run, without its output folder."""
    return make_tiny_run(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def undisturbed(pool, tiny_run, tmp_path_factory) -> dict:
    """How the tiny run goes when nobody disturbs it: status, events, seconds, and what its folder holds."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    (done,) = pool.map(lambda worker, _: worker.run(tiny_run, folder), [None])
    assert done["status"] == 0, done["said"]
    return {**done, "contents": contents(folder)}


@pytest.fixture
def ledger(request):
    """Return a function that notes how many cases of a promise ran and held, and fails where one did not."""
    began = time.monotonic()

    def note(promise: str, faults: list[str], count: int, figure: str = "") -> None:
        """Note a promise's result; faults names the cases that did not hold, of count in all."""
        entry = {"promise": promise, "test": request.node.nodeid.split("[")[0], "cases": count, "figure": figure}
        entry |= {"held": count - len(faults), "seconds": round(time.monotonic() - began, 1)}
        if results := os.environ.get("RELIABILITY_RESULTS"):
            with open(Path(results), "a", encoding="utf-8") as file:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        assert count and not faults, f"{len(faults)} of {count}: " + "\n".join(faults[:5])

    return note
