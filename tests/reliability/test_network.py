"""No test reaches the network: the guard in tests/conftest.py refuses it, and it does refuse."""

import socket

TARGETS = (("192.0.2.1", 80), ("example.invalid", 443), ("10.0.0.1", 22), ("2001:db8::1", 80))  # reserved for examples


def test_the_guard_refuses_what_leaves_this_machine(ledger):
    faults = []
    for host, port in TARGETS:
        try:
            socket.create_connection((host, port), timeout=0.01).close()
        except RuntimeError as problem:
            if str(problem) != f"a test wants to reach {host!r}":
                faults.append(f"{host}: {problem}")
        except OSError as problem:
            faults.append(f"{host}: {problem}")
    ledger(
        "The network is out of reach of the whole test run: a guard refuses every such connection", faults, len(TARGETS)
    )


def test_sockets_of_this_machine_are_left_alone():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass
