"""Lets a local Spark read and write s3:// paths: answers WebHDFS, which Spark's own jars speak, with calls to S3.

Hadoop's connector for S3 is in no package of Python. Its client of WebHDFS is in every Spark, and takes any scheme that the
configuration gives it. The bucket is the host of its requests, which an HTTP proxy of the Java machine leads here.

A folder is what has objects below it. One that was made and is still empty is known here alone, and is gone with the program.
"""

import email.utils
import http.client
import http.server
import json
import os
import secrets
import threading
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

# The port that Hadoop's client puts behind the host; only a mark here, nothing listens there.
MARK = 9870
PREFIX = "/webhdfs/v1"
CHUNK = 1 << 20
BLOCK = 128 << 20
# Copies that run at the same time when a folder is renamed.
PARALLEL_COPIES = 16
SCHEMES = ("s3", "s3a", "s3n")
COMMITTER = "org.apache.hadoop.mapreduce.lib.output.FileOutputCommitterFactory"
# Headers that belong to one connection alone.
HOP_HEADERS = ("connection", "keep-alive", "proxy-connection", "transfer-encoding", "te", "trailer", "upgrade")

JAVA = {
    "FileNotFoundException": (404, "java.io.FileNotFoundException"),
    "FileAlreadyExistsException": (403, "org.apache.hadoop.fs.FileAlreadyExistsException"),
    "PathIsNotEmptyDirectoryException": (403, "org.apache.hadoop.fs.PathIsNotEmptyDirectoryException"),
    "AccessControlException": (403, "org.apache.hadoop.security.AccessControlException"),
    "UnsupportedOperationException": (400, "java.lang.UnsupportedOperationException"),
    "IOException": (403, "java.io.IOException"),
}


class Refusal(Exception):
    """An error of Hadoop's, by the name of its class."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


class Bucket:
    """The files and folders of a bucket."""

    def __init__(self, s3, name):
        self.s3, self.name = s3, name
        self.lock = threading.Lock()
        self.made = set()

    def call(self, operation, **arguments):
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(self.s3, operation)(Bucket=self.name, **arguments)
        except ClientError as error:
            code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
            about = f"s3://{self.name}/{arguments.get('Key') or arguments.get('Prefix') or ''}: {code}: {message}"
            if code in ("404", "NoSuchKey", "NoSuchBucket", "NotFound"):
                raise Refusal("FileNotFoundException", about) from None
            denied = code in ("403", "AccessDenied", "Forbidden")
            raise Refusal("AccessControlException" if denied else "IOException", about) from None
        except BotoCoreError as error:
            raise Refusal("IOException", f"s3://{self.name}: {error}") from None

    def objects(self, prefix):
        """Every object below a prefix."""
        more = {}
        while True:
            page = self.call("list_objects_v2", Prefix=prefix, **more)
            yield from page.get("Contents", [])
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def status(self, key):
        """The status of a file or folder."""
        if not key:
            self.call("list_objects_v2", MaxKeys=1)
            return folder("")
        try:
            found = self.call("head_object", Key=key)
            return file("", found["ContentLength"], found["LastModified"])
        except Refusal as refusal:
            if refusal.kind != "FileNotFoundException":
                raise
        page = self.call("list_objects_v2", Prefix=key + "/", MaxKeys=1)
        if page.get("Contents") or self.was_made(key):
            return folder("")
        raise Refusal("FileNotFoundException", f"File does not exist: s3://{self.name}/{key}")

    def was_made(self, key):
        with self.lock:
            return any(one == key or one.startswith(key + "/") for one in self.made)

    def listing(self, key):
        """The statuses of what is in a folder, in the order of their names."""
        prefix = key + "/" if key else ""
        found, more = {}, {}
        while True:
            page = self.call("list_objects_v2", Prefix=prefix, Delimiter="/", **more)
            for one in page.get("CommonPrefixes", []):
                name = one["Prefix"][len(prefix) :].rstrip("/")
                found[name] = folder(name)
            for one in page.get("Contents", []):
                name = one["Key"][len(prefix) :]
                # A bare prefix is the mark of a folder that another program left.
                if name:
                    found[name] = file(name, one["Size"], one["LastModified"])
            if not page.get("IsTruncated"):
                break
            more = {"ContinuationToken": page["NextContinuationToken"]}
        with self.lock:
            below = {one[len(prefix) :].split("/")[0] for one in self.made if one.startswith(prefix) and one != key}
        for name in below - {""}:
            found.setdefault(name, folder(name))
        if not found:
            one = self.status(key)
            if one["type"] == "FILE":
                return [one]
        return [found[name] for name in sorted(found)]

    def make_folder(self, key):
        parts = key.split("/")
        for depth in range(1, len(parts) + 1):
            above = "/".join(parts[:depth])
            try:
                self.call("head_object", Key=above)
            except Refusal as refusal:
                if refusal.kind != "FileNotFoundException":
                    raise
                continue
            raise Refusal("FileAlreadyExistsException", f"Path is a file: s3://{self.name}/{above}")
        with self.lock:
            self.made.add(key)
        return True

    def rename(self, source, target):
        try:
            status = self.status(source)
        except Refusal as refusal:
            if refusal.kind != "FileNotFoundException":
                raise
            return False
        try:
            if self.status(target)["type"] == "FILE":
                return False
            target = f"{target}/{source.rsplit('/', 1)[-1]}"
        except Refusal as refusal:
            if refusal.kind != "FileNotFoundException":
                raise
        if target == source or target.startswith(source + "/"):
            return False
        if status["type"] == "FILE":
            self.move(source, target)
            return True
        keys = [one["Key"] for one in self.objects(source + "/")]
        with ThreadPoolExecutor(PARALLEL_COPIES) as pool:
            list(pool.map(lambda key: self.move(key, target + key[len(source) :]), keys))
        with self.lock:
            moved = {one for one in self.made if one == source or one.startswith(source + "/")}
            self.made -= moved
            self.made |= {target + one[len(source) :] for one in moved}
        return True

    def move(self, source, target):
        # Managed copies go in parts where one call cannot take the whole object.
        self.call("copy", CopySource={"Bucket": self.name, "Key": source}, Key=target)
        self.call("delete_object", Key=source)

    def delete(self, key, recursive):
        try:
            status = self.status(key)
        except Refusal as refusal:
            if refusal.kind != "FileNotFoundException":
                raise
            return False
        if status["type"] == "FILE":
            self.call("delete_object", Key=key)
            return True
        keys = [one["Key"] for one in self.objects(key + "/" if key else "")]
        if keys and not recursive:
            raise Refusal("PathIsNotEmptyDirectoryException", f"s3://{self.name}/{key} is not empty")
        for start in range(0, len(keys), 1000):
            batch = [{"Key": one} for one in keys[start : start + 1000]]
            answer = self.call("delete_objects", Delete={"Objects": batch, "Quiet": True})
            for error in answer.get("Errors", []):
                raise Refusal("IOException", f"s3://{self.name}/{error['Key']}: {error['Code']}: {error['Message']}")
        with self.lock:
            self.made = {one for one in self.made if key and one != key and not one.startswith(key + "/")}
        return True

    def write(self, key, body, overwrite):
        if not overwrite:
            try:
                self.call("head_object", Key=key)
            except Refusal as refusal:
                if refusal.kind != "FileNotFoundException":
                    raise
            else:
                raise Refusal("FileAlreadyExistsException", f"s3://{self.name}/{key} already exists")
        self.call("upload_fileobj", Fileobj=body, Key=key)


def milliseconds(moment):
    return int(moment.timestamp() * 1000)


def file(name, length, modified):
    at = milliseconds(modified)
    return {**common(name), "type": "FILE", "length": length, "blockSize": BLOCK, "modificationTime": at, "accessTime": at}


def folder(name):
    return {**common(name), "type": "DIRECTORY", "length": 0, "blockSize": 0, "modificationTime": 0, "accessTime": 0}


def common(name):
    return {
        "pathSuffix": name,
        "owner": "user",
        "group": "user",
        "permission": "777",
        "replication": 1,
        "childrenNum": 0,
        "fileId": 0,
        "storagePolicy": 0,
    }


def located_block(length):
    """One block that lies nowhere in particular, as the older and the newer operation name it."""
    block = {"blockPoolId": "s3", "blockId": 1, "numBytes": length, "generationStamp": 1}
    # A token without a content, in the text form of Hadoop's.
    old = {"block": block, "blockToken": {"urlString": "AAAAAA"}, "isCorrupt": False, "startOffset": 0}
    old.update(locations=[], cachedLocations=[], storageTypes=[])
    new = {"offset": 0, "length": length, "corrupt": False, "hosts": ["localhost"], "names": ["localhost"]}
    new.update(cachedHosts=[], storageIds=[], storageTypes=[], topologyPaths=[])
    return old, new


class Chunks:
    """The body of a request, read as a file is."""

    def __init__(self, source, headers):
        self.source = source
        self.is_chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
        self.left = 0 if self.is_chunked else int(headers.get("Content-Length") or 0)
        self.ended = not self.is_chunked and self.left == 0

    def read(self, size=-1):
        parts, wanted = [], size if size is not None and size >= 0 else float("inf")
        while wanted > 0 and not self.ended:
            if self.left == 0:
                self.left = int(self.source.readline(1024).split(b";")[0], 16)
                if self.left == 0:
                    while self.source.readline(8192).strip():
                        pass
                    self.ended = True
                    break
            part = self.source.read(int(min(self.left, wanted, CHUNK)))
            if not part:
                raise Refusal("IOException", "the connection ended before the file did")
            parts.append(part)
            self.left -= len(part)
            wanted -= len(part)
            if self.left == 0:
                if self.is_chunked:
                    self.source.readline(16)
                else:
                    self.ended = True
        return b"".join(parts)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one connection of Spark's."""

    protocol_version = "HTTP/1.1"
    # Small answers go at once.
    disable_nagle_algorithm = True

    def log_message(self, *words):
        pass

    def handle_one(self):
        url = urllib.parse.urlsplit(self.path)
        if url.port != MARK or not url.path.startswith(PREFIX):
            self.pass_on(url)
            return
        if self.server.secret not in self.headers:
            self.refuse(Refusal("AccessControlException", "this gateway belongs to another program"))
            return
        query = {name: values[-1] for name, values in urllib.parse.parse_qs(url.query, keep_blank_values=True).items()}
        try:
            self.operate(self.server.bucket(url.hostname), urllib.parse.unquote(url.path[len(PREFIX) :]).strip("/"), query)
        except Refusal as refusal:
            self.refuse(refusal)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_OPTIONS = do_PATCH = handle_one

    def operate(self, bucket, key, query):
        operation = query.get("op", "").upper()
        if operation == "GETFILESTATUS":
            self.answer({"FileStatus": bucket.status(key)})
        elif operation == "LISTSTATUS":
            self.answer({"FileStatuses": {"FileStatus": bucket.listing(key)}})
        elif operation == "LISTSTATUS_BATCH":
            after = query.get("startAfter", "")
            found = [one for one in bucket.listing(key) if one["pathSuffix"] > after or not after]
            listing = {"partialListing": {"FileStatuses": {"FileStatus": found}}, "remainingEntries": 0}
            self.answer({"DirectoryListing": listing})
        elif operation == "OPEN":
            self.read_file(bucket, key, int(query.get("offset") or 0), query.get("length"))
        elif operation in ("GET_BLOCK_LOCATIONS", "GETFILEBLOCKLOCATIONS"):
            self.locate(bucket.status(key)["length"], operation)
        elif operation == "GETCONTENTSUMMARY":
            sizes = [one["Size"] for one in bucket.objects(key + "/" if key else "")]
            if not sizes and bucket.status(key)["type"] == "FILE":
                sizes = [bucket.status(key)["length"]]
            total = {"directoryCount": 1, "fileCount": len(sizes), "length": sum(sizes), "quota": -1}
            self.answer({"ContentSummary": {**total, "spaceConsumed": sum(sizes), "spaceQuota": -1, "typeQuota": {}}})
        elif operation == "GETHOMEDIRECTORY":
            self.answer({"Path": "/"})
        elif operation == "CREATE":
            self.create(bucket, key, query)
        elif operation == "MKDIRS":
            self.answer({"boolean": bucket.make_folder(key)})
        elif operation == "RENAME":
            self.answer({"boolean": bucket.rename(key, query["destination"].strip("/"))})
        elif operation == "DELETE":
            self.answer({"boolean": bucket.delete(key, query.get("recursive") == "true")})
        elif operation in ("SETPERMISSION", "SETOWNER", "SETTIMES"):
            # S3 keeps none of them; programs set them in passing.
            self.answer(None)
        elif operation == "SETREPLICATION":
            self.answer({"boolean": True})
        else:
            raise Refusal("UnsupportedOperationException", f"{operation} cannot be done on s3:// paths")

    def locate(self, length, operation):
        old, new = located_block(length)
        if operation == "GETFILEBLOCKLOCATIONS":
            self.answer({"BlockLocations": {"BlockLocation": [new]}})
        else:
            whole = {"fileLength": length, "isUnderConstruction": False, "isLastBlockComplete": True}
            self.answer({"LocatedBlocks": {**whole, "locatedBlocks": [old], "lastLocatedBlock": old}})

    def create(self, bucket, key, query):
        if query.get("step") != "2":
            # The body comes only to the place that this names.
            self.send_response(307)
            self.send_header("Location", f"{self.path}&step=2")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = Chunks(self.rfile, self.headers)
        try:
            bucket.write(key, body, query.get("overwrite", "true") == "true")
        except Refusal:
            # What is left of the body must not be read as the next request.
            self.close_connection = True
            raise
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def read_file(self, bucket, key, offset, length):
        status = bucket.status(key)
        if status["type"] != "FILE":
            raise Refusal("FileNotFoundException", f"Path is not a file: s3://{bucket.name}/{key}")
        end = status["length"] if length is None else min(status["length"], offset + int(length))
        if offset >= end:
            self.answer(None)
            return
        found = bucket.call("get_object", Key=key, Range=f"bytes={offset}-{end - 1}")
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(found["ContentLength"]))
        self.end_headers()
        try:
            for part in found["Body"].iter_chunks(CHUNK):
                self.wfile.write(part)
        except ConnectionError:
            # Spark has read as much as it needed.
            self.close_connection = True
        finally:
            found["Body"].close()

    def answer(self, value):
        text = b"" if value is None else json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def refuse(self, refusal):
        status, name = JAVA[refusal.kind]
        error = {"exception": refusal.kind, "javaClassName": name, "message": str(refusal)}
        text = json.dumps({"RemoteException": error}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def pass_on(self, url):
        """A request to somebody else, which the Java machine's proxy setting brought here as well."""
        if url.scheme != "http" or not url.hostname:
            self.send_error(400, "this is a proxy for http: alone")
            return
        body = Chunks(self.rfile, self.headers).read()
        kept = {name: value for name, value in self.headers.items() if name.lower() not in HOP_HEADERS}
        kept.pop(self.server.secret, None)
        connection = http.client.HTTPConnection(url.hostname, url.port or 80, timeout=300)
        try:
            path = urllib.parse.urlunsplit(("", "", url.path or "/", url.query, ""))
            connection.request(self.command, path, body or None, kept)
            answer = connection.getresponse()
            content = answer.read()
        except OSError as error:
            self.send_error(502, f"{url.netloc} cannot be reached: {error}")
            return
        finally:
            connection.close()
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in (*HOP_HEADERS, "content-length"):
                self.send_header(name, value)
        self.send_header("Date", email.utils.formatdate(usegmt=True))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


class Gateway(http.server.ThreadingHTTPServer):
    """The gateway of one program, on a port of its own."""

    daemon_threads = True

    def __init__(self, s3=None):
        super().__init__(("127.0.0.1", 0), Handler)
        # Other programs of this machine reach the port; they do not know the header.
        self.secret = f"X-Gateway-{secrets.token_hex(16)}"
        self.s3 = s3
        self.lock = threading.Lock()
        self.buckets = {}

    def bucket(self, name):
        with self.lock:
            if self.s3 is None:
                self.s3 = client()
            return self.buckets.setdefault(name, Bucket(self.s3, name))

    def start(self):
        threading.Thread(target=self.serve_forever, name="s3-gateway", daemon=True).start()

    def java_options(self):
        port = self.server_address[1]
        return f"-Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort={port}"

    def properties(self):
        """Hadoop's settings that lead the schemes of S3 here."""
        found = {
            # Buckets are no hosts that have an address.
            "hadoop.security.token.service.use_ip": "false",
            "dfs.webhdfs.rest-csrf.enabled": "true",
            "dfs.webhdfs.rest-csrf.custom-header": self.secret,
            "dfs.webhdfs.rest-csrf.methods-to-ignore": "NONE",
        }
        for scheme in SCHEMES:
            found[f"fs.{scheme}.impl"] = "org.apache.hadoop.hdfs.web.WebHdfsFileSystem"
            # Hadoop expects the connector's own committer where the scheme is s3a.
            found[f"mapreduce.outputcommitter.factory.scheme.{scheme}"] = COMMITTER
        return found


def client():
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        message = "the package boto3 is not in the environment of this image; add it to the image in the image catalogue"
        raise Refusal("IOException", message) from None

    style = {"addressing_style": "path"} if os.environ.get("AWS_ENDPOINT_URL") else {}
    return boto3.client("s3", config=Config(s3=style, retries={"mode": "standard", "max_attempts": 5}, max_pool_connections=64))
