"""Signals around a run: what comes after its end is harmless, and a notebook gets its own handlers back."""

import signal
import subprocess
import sys

import pytest
from conftest import ROOT

needs_usr1 = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no SIGUSR1")


@needs_usr1
def test_a_request_to_save_after_the_end_of_train_py_does_not_kill_it():
    code = "import os, signal\nfrom novelgpt.training.stopping import StopSignals\n"
    code += "with StopSignals(exit_at_second=True): pass\nos.kill(os.getpid(), signal.SIGUSR1)\nprint('alive')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "alive\n")


@needs_usr1
def test_a_caller_from_python_gets_its_handlers_back():
    from novelgpt.training.stopping import StopSignals

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    former = [signal.getsignal(number) for number in numbers]
    with StopSignals(exit_at_second=False) as stop:
        assert signal.getsignal(signal.SIGUSR1) == stop.on_save
    assert [signal.getsignal(number) for number in numbers] == former


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_a_run_under_nohup_outlives_its_terminal():
    from novelgpt.training.stopping import StopSignals

    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.must_stop()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, former)


def test_ctrl_break_of_windows_stops_a_run(monkeypatch, capsys):
    from novelgpt.training.stopping import StopSignals

    monkeypatch.setattr(signal, "SIGBREAK", getattr(signal, "SIGBREAK", signal.SIGINT), raising=False)
    monkeypatch.delattr(signal, "SIGUSR1", raising=False)
    with StopSignals() as stop:
        signal.raise_signal(signal.SIGBREAK)
        assert stop.must_stop() and not stop.save_asked
    assert capsys.readouterr().err.endswith(": saving, then stopping (again: stop at once)\n")


@pytest.mark.parametrize(("rank", "said"), [("0", "SIGTERM: saving, then stopping (again: stop at once)\n"), ("1", "")])
def test_the_first_process_alone_says_that_a_signal_was_heard(monkeypatch, capsys, rank, said):
    from novelgpt.training.stopping import StopSignals

    monkeypatch.setenv("RANK", rank)
    stop = StopSignals()
    stop.on_stop(signal.SIGTERM, None)
    assert capsys.readouterr().err == said and stop.must_stop()
