"""A process that has imported torch over the pretended library; it forks for every case, so that none leaves a trace.

    stdin: {"case": "train", "arguments": {...}}      stdout: {"value": ..., "problem": null, "said": "step 1/18 …"}

A case is a function of cases.py, fakes.py or graphs.py; the problem is what it raised, [class, message, traceback].
"""

import gc
import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

from pretended.library import build_library, load_library

MODULES = ("cases", "fakes", "graphs")
# what every case would import by itself
WARM = ("training.session", "writing.prompts", "evaluation.report", "pages.render")
TESTS = Path(__file__).parents[1]


class Server:
    """The process, seen from the tests."""

    def __init__(self):
        build_library()  # here, so that what a compiler says is seen
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{TESTS}:{TESTS.parent}"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
        self.process = subprocess.Popen([sys.executable, "-m", "pretended.server"], **pipes)

    def ask(self, case: str, **arguments) -> dict:
        """Run a case in a process of its own; return what the module's docstring shows."""
        print(json.dumps({"case": case, "arguments": arguments}), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        assert line, f"{case}: the process of the pretended devices died"
        return json.loads(line)

    def run(self, case: str, **arguments):
        """Run a case that must go well; return its value."""
        answer = self.ask(case, **arguments)
        assert answer["problem"] is None, f"{answer['problem'][2]}\n{answer['said'][-2000:]}"
        return answer["value"]

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def serve() -> None:
    """Load everything, then run a case for every line that comes in."""
    load_library(build_library())
    import importlib

    import numba  # noqa: F401
    import torch._dynamo  # noqa: F401
    import transformers.models.gpt2.modeling_gpt2  # noqa: F401

    for name in WARM:
        importlib.import_module(f"novelgpt.{name}")
    modules = [importlib.import_module(f"pretended.{name}") for name in MODULES]
    gc.freeze()  # a collection in a fork would copy all pages
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        asked = json.loads(line)
        function = next(vars(module)[asked["case"]] for module in modules if asked["case"] in vars(module))
        print(json.dumps(run_apart(function, asked["arguments"])), file=out, flush=True)


def run_apart(function, arguments: dict) -> dict:
    """Run a function in a fork; return its value, what it raised and what it said."""
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as answer:
        child = os.fork()
        if child == 0:
            os.dup2(said.fileno(), 2)
            os.dup2(said.fileno(), 1)
            json.dump(outcome(function, arguments), answer)
            answer.flush()
            sys.stderr.flush()
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        answer.seek(0)
        words, result = said.read(), answer.read()
    lost = {"value": None, "problem": ["exit", str(status), f"the process ended with {status}"]}
    return {**(json.loads(result) if result else lost), "said": words}


def outcome(function, arguments: dict) -> dict:
    """Call a function; return its value or what it raised."""
    try:
        return {"value": function(**arguments), "problem": None}
    except BaseException as problem:
        return {"value": None, "problem": [type(problem).__name__, str(problem), traceback.format_exc()]}


if __name__ == "__main__":
    serve()
