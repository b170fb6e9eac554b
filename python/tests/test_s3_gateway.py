"""What the gateway answers a local Spark, over a store that is a dictionary."""

import datetime
import http.client
import io
import json
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "launcher"))

import s3_gateway

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)


class Bucket(s3_gateway.Bucket):
    """A bucket whose calls to S3 go to a dictionary."""

    def __init__(self, s3, name):
        super().__init__(s3, name)
        self.objects_by_key = {}

    def call(self, operation, **arguments):
        key = arguments.get("Key")
        if operation in ("head_object", "get_object"):
            if key not in self.objects_by_key:
                raise s3_gateway.Refusal("FileNotFoundException", "404")
            content = self.objects_by_key[key]
            if operation == "get_object":
                start, end = arguments["Range"].removeprefix("bytes=").split("-")
                content = content[int(start) : int(end) + 1]
                return {"ContentLength": len(content), "Body": Body(content)}
            return {"ContentLength": len(content), "LastModified": NOW}
        if operation == "list_objects_v2":
            return self.page(arguments)
        if operation == "copy":
            self.objects_by_key[key] = self.objects_by_key[arguments["CopySource"]["Key"]]
        elif operation == "delete_object":
            self.objects_by_key.pop(key, None)
        elif operation == "delete_objects":
            for one in arguments["Delete"]["Objects"]:
                self.objects_by_key.pop(one["Key"], None)
        elif operation == "upload_fileobj":
            self.objects_by_key[key] = arguments["Fileobj"].read()
        return {}

    def page(self, arguments):
        prefix, delimiter = arguments.get("Prefix", ""), arguments.get("Delimiter")
        contents, folders = [], set()
        for key in sorted(self.objects_by_key):
            rest = key[len(prefix) :]
            if not key.startswith(prefix):
                continue
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.split(delimiter)[0] + delimiter)
            else:
                contents.append({"Key": key, "Size": len(self.objects_by_key[key]), "LastModified": NOW})
        return {"Contents": contents, "CommonPrefixes": [{"Prefix": one} for one in sorted(folders)]}


class Body(io.BytesIO):
    def iter_chunks(self, size):
        yield from iter(lambda: self.read(size), b"")


class Gateway(unittest.TestCase):
    def setUp(self):
        self.gateway = s3_gateway.Gateway(s3=object())
        self.bucket = self.gateway.buckets["data"] = Bucket(None, "data")
        self.gateway.start()
        self.addCleanup(self.gateway.server_close)
        self.addCleanup(self.gateway.shutdown)

    def ask(self, method, path, body=None, secret=True):
        connection = http.client.HTTPConnection(*self.gateway.server_address)
        self.addCleanup(connection.close)
        headers = {self.gateway.secret: ""} if secret else {}
        url = path if path.startswith("http") else f"http://data:9870/webhdfs/v1/{path}"
        connection.request(method, url, body, headers, encode_chunked=body is not None and not isinstance(body, bytes))
        answer = connection.getresponse()
        return answer, answer.read()

    def told(self, method, path):
        answer, text = self.ask(method, path)
        self.assertEqual(answer.status, 200, text)
        return json.loads(text)

    def create(self, key, parts, query=""):
        answer, _ = self.ask("PUT", f"{key}?op=CREATE{query}")
        self.assertEqual(answer.status, 307)
        return self.ask("PUT", answer.getheader("Location"), iter(parts))

    def test_files_are_written_read_listed_moved_and_deleted(self):
        answer, _ = self.create("a/b.txt", [b"hello ", b"world"])
        self.assertEqual((answer.status, self.bucket.objects_by_key), (201, {"a/b.txt": b"hello world"}))
        answer, text = self.create("a/b.txt", [b"x"], "&overwrite=false")
        self.assertEqual((answer.status, b"FileAlreadyExistsException" in text), (403, True))
        self.assertEqual(self.ask("GET", "a/b.txt?op=OPEN&offset=6&length=3")[1], b"wor")
        self.assertEqual(self.ask("GET", "a/b.txt?op=OPEN&offset=11")[1], b"")
        status = self.told("GET", "a/b.txt?op=GETFILESTATUS")["FileStatus"]
        self.assertEqual((status["type"], status["length"]), ("FILE", 11))
        self.assertEqual(self.told("GET", "a?op=GETFILESTATUS")["FileStatus"]["type"], "DIRECTORY")
        self.assertTrue(self.told("PUT", "a/empty?op=MKDIRS")["boolean"])
        listed = self.told("GET", "a?op=LISTSTATUS")["FileStatuses"]["FileStatus"]
        self.assertEqual([one["pathSuffix"] for one in listed], ["b.txt", "empty"])
        self.assertTrue(self.told("PUT", "a?op=RENAME&destination=/c/d")["boolean"])
        self.assertEqual(self.bucket.objects_by_key, {"c/d/b.txt": b"hello world"})
        answer, text = self.ask("DELETE", "c?op=DELETE&recursive=false")
        self.assertEqual((answer.status, b"PathIsNotEmptyDirectoryException" in text), (403, True))
        self.assertTrue(self.told("DELETE", "c?op=DELETE&recursive=true")["boolean"])
        self.assertEqual(self.bucket.objects_by_key, {})
        answer, text = self.ask("GET", "c?op=GETFILESTATUS")
        self.assertEqual((answer.status, b"java.io.FileNotFoundException" in text), (404, True))

    def test_a_file_stands_in_the_way_of_a_folder(self):
        self.bucket.objects_by_key["a"] = b"1"
        answer, text = self.ask("PUT", "a/b?op=MKDIRS")
        self.assertEqual((answer.status, b"Path is a file: s3://data/a" in text), (403, True))

    def test_what_s3_cannot_do_and_who_does_not_belong_is_refused(self):
        answer, text = self.ask("POST", "a?op=APPEND")
        self.assertEqual((answer.status, b"APPEND cannot be done" in text), (400, True))
        answer, text = self.ask("GET", "a?op=GETFILESTATUS", secret=False)
        self.assertEqual((answer.status, b"belongs to another program" in text), (403, True))

    def test_other_requests_of_the_machine_are_passed_on(self):
        other = s3_gateway.Gateway(s3=object())
        other.start()
        self.addCleanup(other.server_close)
        self.addCleanup(other.shutdown)
        # The other gateway answers as somebody who is reached by an address of his own.
        answer, text = self.ask("GET", f"http://127.0.0.1:{other.server_address[1]}/some/where")
        self.assertEqual(answer.status, 400)
        self.assertIn(b"a proxy for http: alone", text)
        self.assertEqual(self.ask("GET", "http://127.0.0.1:1/")[0].status, 502)
