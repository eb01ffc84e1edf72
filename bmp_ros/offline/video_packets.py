# SPDX-License-Identifier: Apache-2.0
"""Looks ahead in a video file, packet by packet without decoding: times and changes of size.

OpenCV goes on giving images of the first size when the video changes to another one: stale where
the new size is larger, partly written where it is smaller. The size of each packet is therefore
read from its header before its image is asked for.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2

LOOK_AHEAD = 64
"""Packets: more than a decoder takes before it gives the first image (threads, B frames)."""
Size = tuple[int, int]


@dataclass(frozen=True)
class SizeChange:
    """before, after: width and height. frame: number of the first of the new size, at the latest.
    seconds: its time, None where times do not rise."""

    before: Size
    after: Size
    frame: int
    seconds: float | None


class PacketScanner:
    """Reads the packets of the first video stream of a file.

    text: path, safe for OpenCV. packets: read so far. change: the first change of size in them.
    intervals: seconds between consecutive times of the first `LOOK_AHEAD` packets.
    """

    def __init__(self, text: str) -> None:
        self.packets = 0
        self.change: SizeChange | None = None
        self._times: list[float] = []
        self._size: Size | None = None
        self._latest = -math.inf
        self._capture: cv2.VideoCapture | None = cv2.VideoCapture(text, cv2.CAP_FFMPEG)
        # Raw packets; not every build can (then nothing is known).
        if not self._capture.isOpened() or not self._capture.set(cv2.CAP_PROP_FORMAT, -1):
            self.close()
            return
        code = int(self._capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
        name = code.to_bytes(4, "little").decode("latin-1").upper()
        self._size_of = next((read for names, read in _CODECS if name in names), None)

    @property
    def intervals(self) -> list[float]:
        ordered = sorted(self._times)
        return [late - early for early, late in zip(ordered, ordered[1:], strict=False)]

    def advance(self, packets: int | None = None) -> None:
        """Read on until so many packets have been read, or to the end."""
        while self._capture is not None and (packets is None or self.packets < packets):
            if not self._capture.grab():
                self.close()
                return
            seconds = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
            if self.packets < LOOK_AHEAD and 0 <= seconds < 1e9:
                self._times.append(seconds)
            self._look(seconds)
            self.packets += 1
            self._latest = max(self._latest, seconds)

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
        self._capture = None

    def _look(self, seconds: float) -> None:
        assert self._capture is not None
        if self._size_of is None or self.change is not None:
            return
        good, packet = self._capture.retrieve()
        size = _size_in(packet.tobytes(), self._size_of) if good else None
        if size is None or size == self._size:
            return
        if self._size is not None:
            rises = 0 < self._latest < seconds < 1e9
            # MPEG-2 decoders keep one frame back, and lose it here.
            frame = self.packets - int(self._size_of is _mpeg2)
            self.change = SizeChange(self._size, size, frame, seconds if rises else None)
        self._size = size


def _size_in(packet: bytes, read: Callable[[bytes], Size | None]) -> Size | None:
    try:
        size = read(packet)
    except (IndexError, struct.error):  # damaged: the decoder's business
        return None
    return size if size and min(size) > 0 else None


class _Bits:
    """Reads a bit string from its start; raises IndexError beyond its end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        if count > self._left:
            raise IndexError
        self._left -= count
        return (self._value >> self._left) & ((1 << count) - 1)

    def golomb(self) -> int:
        """Unsigned Exp-Golomb code (H.264, 9.1)."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)

    def signed_golomb(self) -> int:
        code = self.golomb()
        return (code + 1) // 2 if code % 2 else -(code // 2)


def _units(packet: bytes) -> Iterator[bytes]:
    """NAL units of H.264 and H.265, behind start codes or 4 byte lengths."""
    if packet[:3] == b"\0\0\1" or packet[:4] == b"\0\0\0\1":
        yield from packet.split(b"\0\0\1")[1:]
        return
    place = 0
    while place + 4 < len(packet):
        (length,) = struct.unpack_from(">I", packet, place)
        yield packet[place + 4 : place + 4 + length]
        place += 4 + length


def _payload(unit: bytes) -> bytes:
    return unit[:512].replace(b"\0\0\3", b"\0\0")  # bytes that avoid start codes


def _h264(packet: bytes) -> Size | None:
    """From the sequence parameter set (H.264, 7.3.2.1.1)."""
    for unit in _units(packet):
        if unit and unit[0] & 31 == 7:
            return _h264_parameters(_Bits(_payload(unit[1:])))
    return None


def _h264_parameters(bits: _Bits) -> Size:
    profile = bits.take(8)
    bits.take(16)
    bits.golomb()
    chroma = 1
    if profile in (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135):
        chroma = bits.golomb()
        bits.take(int(chroma == 3))
        bits.golomb(), bits.golomb(), bits.take(1)
        if bits.take(1):
            for number in range(12 if chroma == 3 else 8):
                if bits.take(1):
                    _skip_scaling_list(bits, 16 if number < 6 else 64)
    bits.golomb()
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1), bits.signed_golomb(), bits.signed_golomb()
        for _ in range(bits.golomb()):
            bits.signed_golomb()
    bits.golomb(), bits.take(1)
    width, height = 16 * (bits.golomb() + 1), 16 * (bits.golomb() + 1)
    fields = 1 - bits.take(1)
    bits.take(fields), bits.take(1)
    height *= 1 + fields
    if bits.take(1):
        left, right, top, bottom = (bits.golomb() for _ in range(4))
        width -= (left + right) * (2 if chroma in (1, 2) else 1)
        height -= (top + bottom) * (2 if chroma == 1 else 1) * (1 + fields)
    return width, height


def _skip_scaling_list(bits: _Bits, length: int) -> None:
    last = following = 8
    for _ in range(length):
        if following:
            following = (last + bits.signed_golomb()) % 256
        last = following or last


def _h265(packet: bytes) -> Size | None:
    """From the sequence parameter set (H.265, 7.3.2.2)."""
    for unit in _units(packet):
        if not unit or (unit[0] >> 1) & 63 != 33:
            continue
        bits = _Bits(_payload(unit[2:]))
        bits.take(4)
        layers = bits.take(3)
        bits.take(1 + 96)
        present = [(bits.take(1), bits.take(1)) for _ in range(layers)]
        bits.take(2 * (8 - layers) if layers else 0)
        for profile, level in present:
            bits.take(88 * profile + 8 * level)
        bits.golomb()
        chroma = bits.golomb()
        bits.take(int(chroma == 3))
        width, height = bits.golomb(), bits.golomb()
        if bits.take(1):
            left, right, top, bottom = (bits.golomb() for _ in range(4))
            width -= (left + right) * (2 if chroma in (1, 2) else 1)
            height -= (top + bottom) * (2 if chroma == 1 else 1)
        return width, height
    return None


def _mpeg4(packet: bytes) -> Size | None:
    """From the video object layer (ISO 14496-2, 6.2.3)."""
    for unit in packet.split(b"\0\0\1")[1:]:
        if not unit or not 0x20 <= unit[0] <= 0x2F:
            continue
        bits = _Bits(unit[1:64])
        bits.take(9)
        version = 1
        if bits.take(1):
            version = bits.take(4)
            bits.take(3)
        if bits.take(4) == 15:
            bits.take(16)
        if bits.take(1):
            bits.take(3)
            bits.take(79 if bits.take(1) else 0)
        shape = bits.take(2)
        bits.take(4 if shape == 3 and version != 1 else 0)
        bits.take(1)
        resolution = bits.take(16)
        bits.take(1)
        if bits.take(1):
            bits.take(max(1, (resolution - 1).bit_length()))
        if shape != 0:
            return None
        bits.take(1)
        width = bits.take(13)
        bits.take(1)
        return width, bits.take(13)
    return None


def _mpeg2(packet: bytes) -> Size | None:
    """From the sequence header of MPEG-1 and MPEG-2 (ISO 13818-2, 6.2.2.1)."""
    place = packet.find(b"\0\0\1\xb3")
    if place < 0:
        return None
    both = int.from_bytes(packet[place + 4 : place + 7], "big")
    return both >> 12, both & 0xFFF


def _jpeg(packet: bytes) -> Size | None:
    """From the frame header (ITU T.81, B.2.2)."""
    place = 2
    while packet[place] == 0xFF:
        marker = packet[place + 1]
        length, _, height, width = struct.unpack_from(">HBHH", packet, place + 2)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return width, height
        place += 2 + length
    return None


def _vp8(packet: bytes) -> Size | None:
    """From key frames (RFC 6386, 9.1)."""
    if packet[0] & 1 or packet[3:6] != b"\x9d\x01\x2a":
        return None
    width, height = struct.unpack_from("<HH", packet, 6)
    return width & 0x3FFF, height & 0x3FFF


def _vp9(packet: bytes) -> Size | None:
    """From frames that carry a size of their own (VP9 bitstream, 6.2)."""
    bits = _Bits(packet[:48])
    bits.take(2)
    profile = bits.take(1) + 2 * bits.take(1)
    bits.take(int(profile == 3))
    if bits.take(1):  # shows an earlier frame
        return None
    inter, shown, resilient = bits.take(1), bits.take(1), bits.take(1)
    if not inter:
        bits.take(24)
        _skip_vp9_colors(bits, profile)
        return bits.take(16) + 1, bits.take(16) + 1
    intra = 0 if shown else bits.take(1)
    bits.take(0 if resilient else 2)
    if intra:
        bits.take(24)
        if profile > 0:
            _skip_vp9_colors(bits, profile)
        bits.take(8)
    else:
        bits.take(8 + 3 * 4)
        if any(bits.take(1) for _ in range(3)):  # as an earlier frame
            return None
    return bits.take(16) + 1, bits.take(16) + 1


def _skip_vp9_colors(bits: _Bits, profile: int) -> None:
    bits.take(int(profile >= 2))
    if bits.take(3) == 7:
        bits.take(profile % 2)
    else:
        bits.take(1 + 3 * (profile % 2))


_CODECS: tuple[tuple[tuple[str, ...], Callable[[bytes], Size | None]], ...] = (
    (("H264", "AVC1", "X264", "DAVC"), _h264),
    (("HEVC", "HEV1", "HVC1", "H265"), _h265),
    (("FMP4", "MP4V", "XVID", "DIVX", "DX50"), _mpeg4),
    (("MPG1", "MPG2", "MPEG"), _mpeg2),
    (("MJPG", "JPEG"), _jpeg),
    (("VP80",), _vp8),
    (("VP90",), _vp9),
)
