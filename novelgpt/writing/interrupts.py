"""Ctrl-C, SIGTERM and a closed terminal -> a question asked between two tokens, so that no character is lost."""

import signal
import threading

# Windows has no SIGHUP, which a closed terminal sends; SIGBREAK, Ctrl-Break, is there alone
STOPPING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")


class StopSignals:
    """Context manager that notes a signal instead of ending the process; the same one again ends it at once.

    Outside the main thread, which alone may do so, it takes no signals. Those that are ignored stay so, as under nohup.

    Attributes:
        number: of the signal that came; None while there was none.

    >>> with StopSignals() as stop:
    ...     signal.raise_signal(signal.SIGINT)
    >>> stop.is_set(), stop.status
    (True, 130)
    """

    def __init__(self):
        self.number: int | None = None
        self.former: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in (getattr(signal, name) for name in STOPPING if hasattr(signal, name)):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self.former[number] = signal.signal(number, self.note)
        return self

    def __exit__(self, *_exception) -> None:
        for number, handler in self.former.items():
            signal.signal(number, handler)

    def note(self, number: int, _frame) -> None:
        """Note the first signal; a closed terminal may tell so twice, any other that comes again means now."""
        if number == self.number and number != getattr(signal, "SIGHUP", None):
            raise SystemExit(self.status)
        self.number = self.number or number

    def is_set(self) -> bool:
        """Tell whether a signal came."""
        return self.number is not None

    @property
    def status(self) -> int:
        """The exit status that tells of the signal, as a shell counts it."""
        return 128 + (self.number or 0)
