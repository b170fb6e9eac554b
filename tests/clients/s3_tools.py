"""What the tests of the S3 front share: a bucket of their own, refused calls, checksums, requests byte by byte."""

import base64
import binascii
import functools
import hashlib
import http.client
import uuid
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def s3(server):
    return server.client("s3")


@pytest.fixture(scope="module")
def bucket(s3):
    """A bucket for the tests of one file."""
    name = f"s3-{uuid.uuid4().hex[:20]}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="module")
def other_account(server):
    """Keys of a second account."""
    import json

    account = f"{uuid.uuid4().int % 10**12:012}"
    key = json.loads(server.command("accounts", "add", account, "--name", f"other-{account}", "--output", "json"))
    return {"account": account, "key": key["AccessKeyId"], "secret": key["SecretAccessKey"]}


def refused(call, *code_and_status, **arguments):
    """Calls what must be refused; checks code and, when given, status; returns the error response."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    answer = (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"])
    assert answer[: len(code_and_status)] == code_and_status, response
    return response


def body(s3, bucket, key, **arguments):
    return s3.get_object(Bucket=bucket, Key=key, **arguments)["Body"].read()


def crc(polynomial, width, data):
    """A reflected CRC whose register starts and ends inverted."""
    mask = (1 << width) - 1
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (polynomial if byte & 1 else 0)
        table.append(byte)
    register = mask
    for byte in data:
        register = register >> 8 ^ table[(register ^ byte) & 0xFF]
    return (register ^ mask).to_bytes(width // 8, "big")


CHECKSUMS = {
    "CRC32": lambda data: binascii.crc32(data).to_bytes(4, "big"),
    "CRC32C": lambda data: crc(0x82F63B78, 32, data),
    "CRC64NVME": lambda data: crc(0x9A6C9329AC4BC9B5, 64, data),
    "SHA1": lambda data: hashlib.sha1(data).digest(),
    "SHA256": lambda data: hashlib.sha256(data).digest(),
}


@functools.lru_cache
def checksum(algorithm, data):
    return base64.b64encode(CHECKSUMS[algorithm](data)).decode()


class Answer:
    def __init__(self, response):
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def code(self):
        text = self.body.decode()
        return text.partition("<Code>")[2].partition("</Code>")[0]


def send(server, method, target, headers=None, data=b"", keys=None, sign_as=None, hash_header=None):
    """Sends a signed request whose target goes out as it is; `sign_as` signs for another body."""
    connection = server.connection
    key, secret = keys or (connection["access_key_id"], connection["secret_access_key"])
    signed_body = data if sign_as is None else sign_as
    request = AWSRequest(method, server.endpoint + target, headers=dict(headers or {}), data=signed_body)

    class Auth(S3SigV4Auth):
        def payload(self, request):
            return hash_header or hashlib.sha256(signed_body).hexdigest()

    Auth(Credentials(key, secret), "s3", "us-east-1").add_auth(request)
    return send_unsigned(server, method, target, dict(request.headers), data)


def send_signed_chunks(server, target, headers, chunks, forge=None):
    """Puts a body in signed chunks; `forge` is the number of a chunk that is changed after it was signed."""
    connection = server.connection
    credentials = Credentials(connection["access_key_id"], connection["secret_access_key"])
    request = AWSRequest("PUT", server.endpoint + target, headers=dict(headers))

    class Auth(S3SigV4Auth):
        def payload(self, request):
            return "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"

    auth = Auth(credentials, "s3", "us-east-1")
    auth.add_auth(request)
    signature = request.headers["Authorization"].rpartition("Signature=")[2]
    empty, stream = hashlib.sha256(b"").hexdigest(), b""
    for number, chunk in enumerate([*chunks, b""]):
        lines = ["AWS4-HMAC-SHA256-PAYLOAD", request.headers["X-Amz-Date"], auth.credential_scope(request), signature, empty]
        signature = auth.signature("\n".join([*lines, hashlib.sha256(chunk).hexdigest()]), request)
        sent = chunk[::-1] if number == forge else chunk
        stream += b"%x;chunk-signature=%s\r\n%s\r\n" % (len(sent), signature.encode(), sent)
    return send_unsigned(server, "PUT", target, dict(request.headers), stream)


def send_unsigned(server, method, target, headers=None, data=b""):
    split = urlsplit(server.endpoint)
    link = http.client.HTTPConnection(split.hostname, split.port, timeout=30)
    try:
        link.putrequest(method, target, skip_accept_encoding=True)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            link.putheader(name, value)
        link.endheaders(data)
        return Answer(link.getresponse())
    finally:
        link.close()
