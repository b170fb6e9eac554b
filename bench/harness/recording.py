"""Requests exactly as boto3 sends them, signed, in the load generator's format."""

import json
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials


SIGNATURE_HEADERS = {"authorization", "x-amz-date", "x-amz-security-token", "content-length"}


class _Captured(Exception):
    pass


def capture(client, operation, **parameters):
    """The request that a call would send, as (method, url, headers, body); nothing is sent."""
    captured = []

    def keep(request, **_):
        captured.append(request)
        raise _Captured

    client.meta.events.register_first("before-send", keep)
    try:
        getattr(client, operation)(**parameters)
    except _Captured:
        pass
    finally:
        client.meta.events.unregister("before-send", keep)
    request = captured[0]
    headers = {name: value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()}
    body = request.body or b""
    return request.method, request.url, headers, body if isinstance(body, str) else body.decode()


def line(method, target, headers, body):
    """One request in the load generator's format."""
    return json.dumps({"method": method, "target": target, "headers": headers, "body": body})


def write(path, captured):
    """Writes one captured request; its signature is valid for 15 minutes, however often it is sent."""
    method, url, headers, body = captured
    path.write_text(line(method, _target(url), _with_host(url, headers), body) + "\n")
    return path


def write_each(path, captures):
    """Writes captured requests one after another."""
    with path.open("w") as file:
        for method, url, headers, body in captures:
            file.write(line(method, _target(url), _with_host(url, headers), body) + "\n")
    return path


def write_many(path, captured, service, connection, changes):
    """Writes a captured request again for each (old, new) text of its body, each signed for itself."""
    method, url, headers, body = captured
    credentials = Credentials(connection["access_key_id"], connection["secret_access_key"])
    unsigned = {name: value for name, value in headers.items() if name.lower() not in SIGNATURE_HEADERS}
    with path.open("w") as file:
        for old, new in changes:
            changed = body.replace(old, new)
            request = AWSRequest(method, url, dict(unsigned), changed)
            SigV4Auth(credentials, service, connection["region"]).add_auth(request)
            file.write(line(method, _target(url), _with_host(url, dict(request.headers.items())), changed) + "\n")
    return path


def _target(url):
    parts = urlsplit(url)
    return parts.path + (f"?{parts.query}" if parts.query else "")


def _with_host(url, headers):
    kept = {name: value for name, value in headers.items() if name.lower() not in ("content-length", "connection")}
    return {**kept, "Host": urlsplit(url).netloc}
