"""An engine without a model: it writes one sentence again and again, character by character, in a thread a job.

A token is a character with its code point as id; a character beyond U+FFFF takes four tokens, as byte tokens do. The
n-th token of a text has the log-probability -0.1 · (n mod 5 + 1).
"""

import threading
from types import SimpleNamespace

from novelgpt.messages import EXIT_ENVIRONMENT, UserError
from novelgpt.studio.jobs import Busy, Job, Piece, Request, Token

SENTENCE = "水又少了一寸。𠮷说。"  # 10 characters, 13 tokens
BOS = 2
OTHER = "药"  # the second-best token everywhere


def tokens_of(text: str, start: int = 0, top: int = 0) -> list[Token]:
    """Return the tokens of a text, its first one being the start-th of the whole."""
    parts = [part for char in text for part in (["", "", "", char] if ord(char) > 0xFFFF else [char])]
    ids = [number for char in text for number in ids_of(char)]
    tokens = []
    for number, (part, token_id) in enumerate(zip(parts, ids, strict=True), start):
        value = -0.1 * (number % 5 + 1)
        best = ((part, token_id, value), (OTHER, ord(OTHER), value - 1))[:top]
        after = ((part, token_id, -0.25), (OTHER, ord(OTHER), -1.5))[:top]
        tokens.append(Token(part, token_id, value, 1, best, after))
    return tokens


def ids_of(text: str) -> list[int]:
    """Return the ids of a text."""
    return [number for char in text for number in ([7, 7, 7, ord(char)] if ord(char) > 0xFFFF else [ord(char)])]


class FakeEngine:
    """Writes at once, or one token each `pace` seconds."""

    def __init__(self, pace: float = 0.0, waiting: int = 32):
        self.pace, self.waiting = pace, waiting
        self.jobs: list[Job] = []
        self.facts = {"name": "fake", "context": 1024, "ready": True, "error": None}

    def state(self) -> dict:
        """Return what is known of the model and the queue."""
        running = sum(not job.is_ended for job in self.jobs)
        return {"model": self.facts, "queue": 0, "running": running, "rate": None}

    def ready_desk(self) -> SimpleNamespace:
        """Return what knows the mark before every text."""
        if not self.facts["ready"]:
            raise UserError("the model is still being loaded", "ask again in a moment", EXIT_ENVIRONMENT)
        return SimpleNamespace(tokenizer=SimpleNamespace(cls_id=BOS))

    def submit(self, request: Request) -> Job:
        """Begin to write."""
        if sum(not job.is_ended for job in self.jobs) >= self.waiting:
            raise Busy
        job = Job(request)
        self.jobs.append(job)
        threading.Thread(target=self.write, args=(job,), daemon=True).start()
        return job

    def write(self, job: Job) -> None:
        """Write all candidates of a job, one after the other."""
        wanted, pause = job.request, threading.Event()
        job.begin()
        for index in range(wanted.candidates):
            text = ""
            endless = tokens_of(SENTENCE * (wanted.length // 13 + 1), top=wanted.top)
            for token in endless[: wanted.length]:
                if job.is_ended:
                    return
                if self.pace:
                    pause.wait(self.pace)
                if any(stop in text + token.text for stop in wanted.stops):
                    break
                text += token.text
                job.grow(Piece(index, token.text, (token,)), [-token.logprob] * len(token.text))
            else:
                job.end(index, "length")
                continue
            job.end(index, "stop")

    def score(self, text: str, start: int, end: int, top: int = 10, settings=None) -> list[Token]:
        """Return the tokens of a part of a text."""
        return tokens_of(text[start:end], start, top)

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of a text."""
        return ids_of(text)

    def detokenize(self, ids: list[int]) -> str:
        """Return the text of ids."""
        return "".join(chr(token) for token in ids if token not in (7, BOS))
