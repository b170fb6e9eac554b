"""Reading requests from and writing answers to one connection, as PROTOCOL.md describes."""
import json
import socket
import struct

MAX_HEADER_BYTES = 1024 * 1024
# Far more than any caller may send; a length that is nonsense must not take all memory.
MAX_BODY_BYTES = 4 * 1024 * 1024 * 1024
CHUNKED = 2**64 - 1
CHUNK_ERROR = 2**32 - 1

_PREFIX = struct.Struct(">IQ")
_LENGTH = struct.Struct(">I")
_BUFFER_BYTES = 64 * 1024
# Below this size one copy is cheaper than a second buffer in the system call.
_JOIN_BELOW_BYTES = 64 * 1024


class ProtocolError(Exception):
    """The peer does not follow the protocol; the connection is of no more use."""


class Connection:
    """One connection from the data plane. It carries one request at a time."""

    def __init__(self, stream):
        self._stream = stream
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._plain_headers = {}

    def close(self):
        self._stream.close()

    def read_request(self):
        """Returns (header, body), or None when the data plane has closed the connection.

        The body is a view of memory that the next request overwrites.
        """
        view = self._view
        have = self._stream.recv_into(view)
        if have == 0:
            return None
        have = self._fill(have, _PREFIX.size)
        header_bytes, body_bytes = _PREFIX.unpack_from(view)
        if header_bytes > MAX_HEADER_BYTES:
            raise ProtocolError("the header is too long")
        if body_bytes > MAX_BODY_BYTES:
            raise ProtocolError("the body is too long")
        body_start = _PREFIX.size + header_bytes
        if body_start > len(view):
            self._grow(body_start)
            view = self._view
        have = self._fill(have, body_start)
        try:
            header = json.loads(str(view[_PREFIX.size:body_start], "utf-8"))
        except ValueError as error:
            raise ProtocolError("the header is not JSON") from error
        if not isinstance(header, dict):
            raise ProtocolError("the header is not a JSON object")
        end = body_start + body_bytes
        if have > end:
            raise ProtocolError("bytes follow the request")
        if have == end:
            return header, view[body_start:end]
        return header, self._read_rest(view[body_start:have], body_bytes)

    def _fill(self, have, wanted):
        while have < wanted:
            count = self._stream.recv_into(self._view[have:])
            if count == 0:
                raise ProtocolError("the request ends in its middle")
            have += count
        return have

    def _grow(self, size):
        larger = bytearray(size)
        larger[: len(self._buffer)] = self._buffer
        self._buffer = larger
        self._view = memoryview(larger)

    def _read_rest(self, start, body_bytes):
        # Memory of its own, which goes with the request: a large one must not make the worker large for good.
        body = memoryview(bytearray(body_bytes))
        have = len(start)
        body[:have] = start
        while have < body_bytes:
            # The kernel fills as much as it can in one call.
            count = self._stream.recv_into(body[have:], min(body_bytes - have, 1 << 30), socket.MSG_WAITALL)
            if count == 0:
                raise ProtocolError("the request ends in its middle")
            have += count
        return body

    def send_answer(self, header, body=b""):
        """Sends an answer whose body is known."""
        head = self._encode_header(header, len(body))
        if len(body) < _JOIN_BELOW_BYTES:
            self._stream.sendall(head + body)
            return
        sent = self._stream.sendmsg([head, body])
        if sent < len(head):
            self._stream.sendall(head[sent:])
            sent = len(head)
        self._stream.sendall(memoryview(body)[sent - len(head):])

    def send_answers(self, answers):
        """Sends answers whose bodies are known, small ones together."""
        pieces, size = [], 0
        for header, body in answers:
            if pieces and size + len(body) >= _JOIN_BELOW_BYTES:
                self._stream.sendall(b"".join(pieces))
                pieces, size = [], 0
            if len(body) >= _JOIN_BELOW_BYTES:
                self.send_answer(header, body)
                continue
            pieces += [self._encode_header(header, len(body)), body]
            size += len(body)
        if pieces:
            self._stream.sendall(b"".join(pieces))

    def begin_chunks(self, header):
        """Begins an answer whose body comes in chunks."""
        self._stream.sendall(self._encode_header(header, CHUNKED))

    def send_chunk(self, chunk):
        """Sends a piece of the body. An empty one is left out: it would end the body."""
        view = memoryview(chunk)
        while len(view):
            part, view = view[: 1 << 30], view[1 << 30:]
            self._stream.sendall(_LENGTH.pack(len(part)) + part)

    def end_chunks(self):
        self._stream.sendall(_LENGTH.pack(0))

    def fail_chunks(self, message):
        """Ends the body with an error text."""
        message = message.encode("utf-8", "replace")
        self._stream.sendall(_LENGTH.pack(CHUNK_ERROR) + _LENGTH.pack(len(message)) + message)

    def _encode_header(self, header, body_bytes):
        # Nearly every answer has the same header; the encoded form is kept.
        fields = 2 if "content_type" in header else 1
        if header.get("status") != 200 or len(header) != fields:
            encoded = json.dumps(header).encode("utf-8")
        else:
            content_type = header.get("content_type")
            encoded = self._plain_headers.get(content_type)
            if encoded is None:
                encoded = json.dumps(header).encode("utf-8")
                if len(self._plain_headers) < 16:
                    self._plain_headers[content_type] = encoded
        return _PREFIX.pack(len(encoded), body_bytes) + encoded


def split_batch(header, body):
    """The requests of a batch as pairs of header and body, which are views of its body."""
    headers, sizes = header.get("requests"), header.get("body_bytes")
    if not isinstance(headers, list) or not isinstance(sizes, list) or len(headers) != len(sizes):
        raise ProtocolError("the batch does not say what is in it")
    requests, start = [], 0
    for each, size in zip(headers, sizes):
        if not isinstance(each, dict) or not isinstance(size, int) or size < 0:
            raise ProtocolError("the batch does not say what is in it")
        requests.append((each, body[start:start + size]))
        start += size
    if start != len(body):
        raise ProtocolError("the bodies of the batch have another length than it says")
    return requests
