"""The script's functions in a process of their own and nothing else: bodies come over a socket and answers go back, each after its length in
four bytes."""

import os
import socket
import struct
import sys

sys.path.insert(0, os.environ["SCRIPT_DIRECTORY"])

import inference  # noqa: E402

JSON = "application/json"
LENGTH = struct.Struct(">I")


def main():
    model = inference.model_fn(os.environ["MODEL_DIRECTORY"])
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(sys.argv[1])
    buffer = b""
    while received := stream.recv(64 * 1024):
        buffer += received
        start, answers = 0, []
        while len(buffer) >= start + LENGTH.size:
            end = start + LENGTH.size + LENGTH.unpack_from(buffer, start)[0]
            if end > len(buffer):
                break
            rows = inference.input_fn(buffer[start + LENGTH.size : end].decode(), JSON)
            answer = inference.output_fn(inference.predict_fn(rows, model), JSON)[0].encode()
            answers += [LENGTH.pack(len(answer)), answer]
            start = end
        buffer = buffer[start:]
        if answers:
            stream.sendall(b"".join(answers))


if __name__ == "__main__":
    main()
