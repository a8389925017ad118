"""UTF-8 bytes of the text over bytes of its zstd frame at level 3. Needs no model.

Repetition is high, noise is low. A frame has some ten bytes of its own, so short texts are low, too,
whatever they say. Empty texts and blocks of token ids have no score.
"""

from ..stream.zstd_blocks import compressed_size

EASY = "high"
LEVEL = 3  # that of zstd(1), and of the streams that this program writes


def compression(content: str | list[int]) -> float | None:
    """len(text) / len(zstd(text)); the frame has its content size and no checksum."""
    if not content or not isinstance(content, str):
        return None
    text = content.encode()
    return len(text) / compressed_size(text, LEVEL)
