"""What the workers tell their supervisor, in memory that they share: no system call on the path of a request."""
import mmap
import struct
import time

_SLOT = struct.Struct("=ddBI")
_SLOT_BYTES = 16 * 1024
_TEXT_BYTES = _SLOT_BYTES - _SLOT.size


class WorkerState:
    """One worker: since when it has been busy and for how long it may be, whether it has ever been ready, and why it could not
    load its model."""

    def __init__(self, memory, offset):
        self._memory = memory
        self._offset = offset

    def _read(self):
        return _SLOT.unpack_from(self._memory, self._offset)

    def _write(self, busy_since, ready, text_bytes, limit=0.0):
        _SLOT.pack_into(self._memory, self._offset, busy_since, limit, ready, text_bytes)

    def reset(self):
        self._write(0.0, 0, 0)

    def set_idle(self):
        self._write(0.0, 1, 0)

    def set_busy(self, limit=None):
        """`limit`: the seconds that this request has, when it says so itself."""
        self._write(time.monotonic(), 1, 0, limit or 0.0)

    def set_failed(self, text):
        # The end of a traceback says more than its beginning.
        encoded = text.encode("utf-8", "replace")[-_TEXT_BYTES:]
        start = self._offset + _SLOT.size
        self._memory[start:start + len(encoded)] = encoded
        self._write(0.0, 0, len(encoded))

    def busy_seconds(self):
        since = self._read()[0]
        return time.monotonic() - since if since else 0.0

    def limit_seconds(self, default):
        """The seconds that the request at hand has."""
        return self._read()[1] or default

    def is_ready(self):
        return bool(self._read()[2])

    def failure(self):
        """The text of `set_failed`, or None."""
        text_bytes = self._read()[3]
        start = self._offset + _SLOT.size
        return bytes(self._memory[start:start + text_bytes]).decode("utf-8", "replace") if text_bytes else None


def make(count):
    """States of that many workers; processes forked from this one share them."""
    memory = mmap.mmap(-1, count * _SLOT_BYTES)
    return [WorkerState(memory, index * _SLOT_BYTES) for index in range(count)]
