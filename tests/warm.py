"""A `python` that starts in a moment: a server has imported the large libraries and forks for every command.

    python tests/warm.py serve SOCKET       imports, then forks once for every client
    python tests/warm.py SOCKET script.py … hands its command, folder, environment and standard files to the server

The fork is the command's process: only its imports and its hash seed are those of the server. A signal to the client
does not reach it, but a terminal of its own does: Ctrl-C that is typed, and its closing. Nothing of novelgpt is
imported before, so a copy of the checkout runs.
"""

import json
import os
import socket
import sys


def ask(path: str, words: list[str]) -> int:
    """Let the server run a command with this process's standard files; return its status."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        command = {"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}
        socket.send_fds(server, [json.dumps(command).encode() + b"\n"], [0, 1, 2])
        return int(server.makefile().readline())


def serve(path: str) -> None:
    """Wait for clients and run the command of each in a process of its own."""
    import gc
    import signal

    import numba  # noqa: F401
    import torch.distributed  # noqa: F401
    import transformers.models.gpt2.modeling_gpt2  # noqa: F401

    gc.freeze()  # a collection in a fork would copy all pages
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that pass the status on
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        while True:
            client, _ = listener.accept()
            if os.fork() == 0:
                break
            client.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, handles, *_ = socket.recv_fds(client, 1 << 20, 3)
    if child := os.fork():
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        client.sendall(f"{status if status >= 0 else 128 - status}\n".encode())
        os._exit(0)
    client.close()
    os._exit(status_of(json.loads(message), handles))


def status_of(command: dict, handles: list[int]) -> int:
    """Run a command, say what went wrong, do what is registered for the end; without clearing a forked memory up."""
    import atexit
    import traceback

    try:
        become(command, handles)
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    return status


def become(command: dict, handles: list[int]) -> None:
    """Run a command as if Python had just been started with it."""
    import fcntl
    import runpy
    import termios

    encoding = command["environment"].get("PYTHONIOENCODING", "utf-8")
    for place, (name, handle) in enumerate(zip(("stdin", "stdout", "stderr"), handles, strict=True)):
        os.dup2(handle, place)
        os.close(handle)
        mode = "w" if place else "r"
        setattr(sys, name, open(place, mode, buffering=1, encoding=encoding, closefd=False))  # noqa: SIM115
    if os.isatty(0):  # the command belongs to this terminal, not to that of the server
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.chdir(command["folder"])
    os.environ.clear()
    os.environ.update(command["environment"])
    script, *arguments = command["words"]
    if script == "-c":
        code, *arguments = arguments
        sys.argv, sys.path[0] = ["-c", *arguments], ""
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv, sys.path[0] = [script, *arguments], os.path.dirname(os.path.abspath(script))
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sys.exit(ask(sys.argv[1], sys.argv[2:]))
