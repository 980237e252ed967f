"""Run scripts as Windows would: without what only POSIX has, and with the rules of its files and of its code page.

    python tests/as_windows.py '[["clr_ctrl.py", "novel.txt"], ["train.py", "--raw"]]'

Taken away: fcntl, resource, termios and the like; fork, sysconf, the signals of POSIX, flags of os.open.
Refused: opening a folder, flushing what is open for reading, removing or renaming what is open or mapped, renaming
onto what is there. Different: a text file without a named encoding is GBK, as a Chinese Windows has it.
On Windows itself nothing has to be pretended.
"""

import builtins
import concurrent.futures.process  # noqa: F401 (the standard library takes its POSIX half before anything goes)
import errno
import io
import json
import os
import runpy
import shutil
import signal
import sys
import tempfile
import types
from multiprocessing import set_start_method

MODULES = ("fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "syslog", "readline")
SIGNALS = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGALRM", "SIGCHLD", "SIGQUIT", "SIGPIPE", "SIGTSTP", "SIGWINCH")
FUNCTIONS = """fork forkpty wait waitpid killpg getuid geteuid getgid getpgid setsid uname sysconf statvfs nice chown
    posix_fadvise posix_fallocate posix_spawn sched_getaffinity sched_setaffinity mkfifo sendfile sync fdatasync pread
    pwrite fchmod fchdir O_DIRECTORY O_NOFOLLOW O_CLOEXEC O_SYNC O_DSYNC O_NONBLOCK""".split()


def refuse(path: object, number: int = errno.EACCES) -> None:
    """Raise what Windows raises."""
    raise OSError(number, os.strerror(number), str(path))


def files_in_use() -> set[str]:
    """Return the files that this process has open or mapped."""
    found = set()
    for handle in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{handle}"))
        except OSError:
            continue
    with real_open("/proc/self/maps", encoding="utf-8") as file:
        return found | {words[5] for line in file if len(words := line.rstrip("\n").split(maxsplit=5)) == 6}


def check_free(path: object) -> None:
    """Refuse to touch the name of a file in use, or of a folder with one in it."""
    path = os.path.realpath(os.fspath(path))
    for used in files_in_use():
        if used == path or used.startswith(path + os.sep):
            refuse(path)


def take_away() -> None:
    """Remove what Windows has not; give it what it has instead of fcntl."""
    for name in MODULES:
        sys.modules[name] = None
    for place, names in ((signal, SIGNALS), (os, FUNCTIONS)):
        for name in names:
            if hasattr(place, name):
                delattr(place, name)
    locked = []
    msvcrt = types.SimpleNamespace(LK_NBLCK=2, locking=lambda handle, mode, count: locked.append(handle))
    sys.modules["msvcrt"] = msvcrt
    shutil._use_fd_functions = shutil._USE_CP_SENDFILE = False
    tempfile.TemporaryFile = tempfile.NamedTemporaryFile
    shutil.disk_usage = lambda path: types.SimpleNamespace(total=1 << 40, used=0, free=1 << 40)


def change_files() -> None:
    """Let os and open follow the rules of Windows."""
    real = {name: getattr(os, name) for name in ("open", "fsync", "rename", "replace", "unlink", "remove", "rmdir")}
    modes = {}  # handle: how os.open opened it

    def open_handle(path, flags, *rest, **named):
        if os.path.isdir(path):
            refuse(path)
        handle = real["open"](path, flags, *rest, **named)
        modes[handle] = flags
        return handle

    def fsync(handle):
        number = handle if isinstance(handle, int) else handle.fileno()
        with real_open(f"/proc/self/fdinfo/{number}", encoding="ascii") as file:
            flags = int(next(line for line in file if line.startswith("flags:")).split()[1], 8)
        if flags & 3 == os.O_RDONLY:
            refuse(number, errno.EBADF)

    def rename(old, new, **_named):
        if os.path.exists(new):
            refuse(new, errno.EEXIST)
        check_free(old)
        real["rename"](old, new)

    def replace(old, new, **_named):
        if os.path.isdir(new):
            refuse(new)
        check_free(old)
        check_free(new)
        real["replace"](old, new)

    def checked(name):
        def work(path, **_named):
            check_free(path)
            real[name](path)

        return work

    os.open, os.fsync, os.rename, os.replace = open_handle, fsync, rename, replace
    for name in ("unlink", "remove", "rmdir"):
        setattr(os, name, checked(name))


def change_encoding() -> None:
    """Let text files without a named encoding be GBK, and /proc be absent."""

    def open_file(file, mode="r", buffering=-1, encoding=None, *rest, **named):
        if str(file).startswith("/proc/"):
            refuse(file, errno.ENOENT)
        if "b" not in mode and encoding in (None, "locale"):
            encoding = "gbk"
        return real_open(file, mode, buffering, encoding, *rest, **named)

    builtins.open = io.open = open_file


real_open = open

if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    if os.name != "nt":
        set_start_method("spawn")
        import numba  # noqa: F401
        import transformers.models.gpt2.modeling_gpt2  # noqa: F401

        take_away()
        change_files()
        change_encoding()
    for command in json.loads(sys.argv[1]):
        sys.argv = command
        print(f"-- {' '.join(command)}", file=sys.stderr, flush=True)
        try:
            runpy.run_path(command[0], run_name="__main__")
        except SystemExit as end:
            if end.code:
                raise
