"""The bytes of a novel -> its text, whatever encoding they came in, or an error; never a silent guess.

likelihood   how much a text looks like Chinese prose, in nats: the evidence
repair       bytes read in one encoding, with faults around lost and changed bytes repaired
mixed        files whose lines are in several encodings
detect       which encoding it is: decode_bytes
blocks       the same for a file larger than the memory: TextStream
"""

from novelgpt.corpus.encodings.blocks import TextStream, cut_blocks
from novelgpt.corpus.encodings.detect import decode_bytes
from novelgpt.corpus.encodings.repair import Decoded

__all__ = ["Decoded", "TextStream", "cut_blocks", "decode_bytes"]
