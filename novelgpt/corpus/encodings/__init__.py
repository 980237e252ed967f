"""The bytes of a novel -> its text, whatever encoding they came in, or an error; never a silent guess.

likelihood   how much a text looks like Chinese prose, in nats: the evidence
repair       bytes read in one encoding, with faults around lost and changed bytes repaired
wide         the same for UTF-16 and UTF-32
mixed        files whose lines are in several encodings, and lines that change theirs midway
candidates   which encoding it is
detect       decode_bytes for a whole file, TextStream for one larger than the memory
"""

from novelgpt.corpus.encodings.detect import Decoded, TextStream, decode_bytes

__all__ = ["Decoded", "TextStream", "decode_bytes"]
