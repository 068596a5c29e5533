"""Frames instead of bytes: codecs that know no socket, compiled.

::

    from headrace import framing

    frames = stream.framed(framing.LengthPrefixed(4))
    async for frame in frames:
        await frames.write(frame.upper())

A codec has no state: one may serve any number of streams. ``Decoder`` uses one without a stream.
"""

from headrace.framing._codec import Codec, Decoder, Need
from headrace.framing._delimited import Delimited, JSONLines, Lines
from headrace.framing._length import Fixed, LengthPrefixed, Netstring, Varint

__all__ = (
    "Codec",
    "Decoder",
    "Delimited",
    "Fixed",
    "JSONLines",
    "LengthPrefixed",
    "Lines",
    "Need",
    "Netstring",
    "Varint",
)
