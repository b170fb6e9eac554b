"""Reading and writing frames."""
import json
import os
import socket
import struct
import threading
import unittest

from model_host.frames import CHUNK_ERROR, CHUNKED, Connection, ProtocolError


def frame(header, body=b""):
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack(">IQ", len(encoded), len(body)) + encoded + body


class Frames(unittest.TestCase):
    def setUp(self):
        self.peer, stream = socket.socketpair()
        self.connection = Connection(stream)
        self.addCleanup(self.peer.close)
        self.addCleanup(self.connection.close)

    def send(self, data):
        # From a thread, because large bodies do not fit into the socket's buffer.
        thread = threading.Thread(target=self.peer.sendall, args=(data,))
        thread.start()
        self.addCleanup(thread.join)

    def receive(self, count):
        data = b""
        while len(data) < count:
            part = self.peer.recv(count - len(data))
            self.assertTrue(part, "the answer ends in its middle")
            data += part
        return data

    def receive_answer(self):
        header_bytes, body_bytes = struct.unpack(">IQ", self.receive(12))
        header = json.loads(self.receive(header_bytes))
        return header, CHUNKED if body_bytes == CHUNKED else self.receive(body_bytes)

    def test_bodies_of_all_sizes_arrive_untouched(self):
        for size in (0, 1, 65_400, 65_536, 65_600, 3_000_001):
            body = os.urandom(size)
            self.send(frame({"kind": "invoke", "size": size}, body))
            header, got = self.connection.read_request()
            self.assertEqual(header["size"], size)
            self.assertIsInstance(got, memoryview)
            self.assertTrue(got == body, size)

    def test_headers_larger_than_the_buffer_arrive(self):
        for size in (70_000, 1_000_000):
            self.send(frame({"custom_attributes": "x" * size}, b"body"))
            header, body = self.connection.read_request()
            self.assertEqual((len(header["custom_attributes"]), body), (size, b"body"))

    def test_a_request_may_come_byte_by_byte(self):
        def trickle():
            for byte in frame({"kind": "ping"}, b"abc"):
                self.peer.sendall(bytes([byte]))

        thread = threading.Thread(target=trickle)
        thread.start()
        self.assertEqual(self.connection.read_request(), ({"kind": "ping"}, b"abc"))
        thread.join()

    def test_a_closed_connection_is_no_request(self):
        self.peer.close()
        self.assertIsNone(self.connection.read_request())

    def test_what_breaks_the_protocol_is_refused(self):
        broken = [
            b"\0",
            struct.pack(">IQ", 2**31, 0),
            struct.pack(">IQ", 2, 2**62) + b"{}",
            frame(b"not json"),
            frame(b"[]"),
            frame({"kind": "ping"}) + b"more",
            frame({"kind": "ping"}, b"body")[:-1],
            struct.pack(">IQ", 2, 10**6) + b"{}" + b"x" * 100_000,
        ]
        for data in broken:
            peer, stream = socket.socketpair()
            with peer, stream:
                peer.sendall(data)
                peer.shutdown(socket.SHUT_WR)
                with self.assertRaises(ProtocolError, msg=data[:40]):
                    Connection(stream).read_request()

    def test_answers_keep_their_own_headers(self):
        # The encoded headers are kept for reuse; they must not be mixed up.
        headers = [
            {"status": 200},
            {"status": 200, "content_type": "text/csv"},
            {"status": 200, "custom_attributes": "a"},
            {"status": 500, "content_type": "text/csv"},
            {"status": 200, "content_type": "text/csv", "custom_attributes": "b"},
        ]
        for header in headers + headers:
            self.connection.send_answer(header, b"x")
            self.assertEqual(self.receive_answer(), (header, b"x"))

    def test_a_large_answer_arrives_whole(self):
        body = os.urandom(2_000_000)
        thread = threading.Thread(target=self.connection.send_answer, args=({"status": 200}, body))
        thread.start()
        self.assertEqual(self.receive_answer()[1], body)
        thread.join()

    def test_chunks(self):
        self.connection.begin_chunks({"status": 200})
        for chunk in (b"ab", b"", bytearray(b"c")):
            self.connection.send_chunk(chunk)
        self.connection.end_chunks()
        self.assertEqual(self.receive_answer(), ({"status": 200}, CHUNKED))
        self.assertEqual(self.receive(15), b"\0\0\0\2ab\0\0\0\1c\0\0\0\0")
        self.connection.fail_chunks("oh")
        self.assertEqual(self.receive(10), struct.pack(">II", CHUNK_ERROR, 2) + b"oh")
