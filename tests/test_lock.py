"""A run folder has one holder, who is named, and whose death frees it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from novelgpt.files import write_text
from novelgpt.lock import run_lock
from novelgpt.messages import UserError

HOLDER = """
import sys, time
from novelgpt.lock import run_lock
with run_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_with_the_pid_and_a_killed_one_holds_nothing(tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            began = time.monotonic()
            with pytest.raises(UserError) as caught, run_lock(folder):
                pass
            assert time.monotonic() - began < 1
            message = caught.value.message
            assert message.startswith(f"{folder}: in use by pid {holder.pid}, started 20")
            assert caught.value.hint == "wait for it, or give --output_dir another folder"
            assert caught.value.code == 4
        finally:
            holder.send_signal(signal.SIGKILL)
            holder.wait()
    with run_lock(folder):
        assert (folder / ".lock").read_text(encoding="utf-8").startswith(f"pid {os.getpid()}, started 20")


def test_a_lock_is_free_again_after_the_block(tmp_path):
    for _ in range(2):
        with run_lock(tmp_path / "run"):
            pass


def test_a_lock_on_a_file_is_refused(tmp_path):
    write_text(tmp_path / "run", "x")
    with pytest.raises(UserError) as caught, run_lock(tmp_path / "run"):
        pass
    assert caught.value.message == f"{tmp_path / 'run'}: cannot be written: File exists"
    assert caught.value.code == 4


def test_a_folder_made_for_a_lock_goes_again_when_nothing_was_put_in(tmp_path):
    with run_lock(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()
    assert not (tmp_path / "new").exists()
    with run_lock(tmp_path / "used"):
        (tmp_path / "used" / "run.json").write_text("{}")
    assert (tmp_path / "used" / "run.json").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_lock_that_goes_again_is_closed_first_where_nothing_open_is_removed(tmp_path, monkeypatch):
    unlink, is_open = Path.unlink, []

    def refuse_open(path):
        names = [os.readlink(place) for place in Path("/proc/self/fd").iterdir() if place.is_symlink()]
        is_open.append(str(path) in names)
        if is_open[-1]:  # as on Windows
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path)

    monkeypatch.setattr(Path, "unlink", refuse_open)
    with run_lock(tmp_path / "new"):
        pass
    assert is_open == [True, False] and not (tmp_path / "new").exists()
