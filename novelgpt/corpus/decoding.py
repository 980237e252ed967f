"""The promised name `novelgpt.corpus.decoding.decode_bytes`; the code is in encodings/."""

from novelgpt.corpus.encodings import Decoded as Decoded
from novelgpt.corpus.encodings import decode_bytes as decode_bytes
