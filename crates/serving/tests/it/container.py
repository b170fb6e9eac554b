"""A model container as far as the data plane sees it: an HTTP server, and a door that hands out sockets.

Its listening socket comes as standard input. Custom attributes say what to do; otherwise it gives the body back.
"""

import http.server
import json
import os
import socket
import sys
import threading

door, model_dir = sys.argv[1:]
version = open(os.path.join(model_dir, "version")).read()
models = {}


def hand_out():
    os.chdir(os.path.dirname(door))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.basename(door))
    listener.listen()
    while True:
        client, _ = listener.accept()
        sockets = [socket.socket() for _ in range(8)]
        for one in sockets:
            one.setblocking(False)
        socket.send_fds(client, [b"s"], [one.fileno() for one in sockets])
        # A socket that is open here too would not be closed by the one who got it.
        for one in (client, *sockets):
            one.close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0" if version == "closing" else "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def models_path(self, body=b""):
        """The paths of containers that load many models; there is room for two."""
        _, _, name, *rest = self.path.split("/") + [""]
        if self.command == "GET" and not name:
            listed = [{"modelName": name, "modelUrl": url} for name, url in models.items()]
            return self.answer(200, json.dumps({"models": listed}).encode())
        if self.command == "POST" and not name:
            asked = json.loads(body)
            name, url = asked["model_name"], asked["url"]
            if name in models:
                return self.answer(409, b"it is loaded")
            if len(models) == 2:
                return self.answer(507, b"two are enough")
            if not os.path.exists(os.path.join(url, "code/inference.py")):
                return self.answer(500, b"there is nothing at " + url.encode())
            models[name] = url
            return self.answer(200, b"")
        if name not in models:
            return self.answer(404, b"")
        if self.command == "DELETE":
            del models[name]
            return self.answer(200, b"")
        if self.command == "GET":
            return self.answer(200, b"{}")
        if body == b"404":
            return self.answer(404, b"the model says so")
        if body == b"forget":
            del models[name]
            return self.answer(404, b"")
        self.answer(200, name.split("-")[0].encode() + b" " + body)

    def do_DELETE(self):
        self.models_path()

    def do_GET(self):
        if version == "many" and self.path.startswith("/models"):
            return self.models_path()
        # One that speaks the Open Inference Protocol by itself, and answers every other path somehow.
        spoken = {"/v2": b'{"name": "own", "extensions": []}', "/v2/models": b'{"models": ["inner"]}'}
        if version == "own-words" and self.path != "/ping":
            return self.answer(200, spoken.get(self.path, b"{}"))
        if self.path != "/ping":
            return self.answer(200 if self.path == "/known" else 404, b"known")
        try:
            self.answer(int(open(os.path.join(model_dir, "ping")).read()), b"")
        except FileNotFoundError:
            self.answer(200, b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.startswith("/models"):
            return self.models_path(body)
        if self.path.startswith("/v2/"):
            seen = {"path": self.path, "body": body.decode(), **self.headers}
            status = 418 if body == b"fail" else 200
            return self.answer(status, json.dumps(seen).encode(), Content_Type="application/json", X_Own="back")
        order, _, value = self.headers.get("X-Model-Custom-Attributes", "").partition(":")
        if order == "pid":
            return self.answer(200, str(os.getpid()).encode())
        if order == "headers":
            return self.answer(200, json.dumps({"path": self.path, **self.headers}).encode(), Content_Type="application/json")
        if order == "raise":
            return self.answer(418, b"bad " + value.encode(), Content_Type="text/plain")
        if order == "crash":
            os._exit(3)
        if order == "drop":
            self.close_connection = True
            return
        if order == "await":
            with open(value) as fifo:
                return self.answer(200, fifo.read().encode())
        if order == "session":
            return self.answer(200, b"", X_Model_New_Session_Id="s1", X_Model_Closed_Session_Id="s0")
        if order in ("stream", "broken"):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number in range(int(value)):
                piece = b"piece %d;" % number
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            if order == "broken":
                self.close_connection = True
            else:
                self.wfile.write(b"0\r\n\r\n")
            return
        self.answer(200, body, X_Model_Custom_Attributes="did " + order)


class Single(http.server.HTTPServer):
    """Serves one connection to its end before the next."""


if os.path.exists(os.path.join(model_dir, "end")):
    sys.exit("the weights are missing")
server = (Single if version == "single" else http.server.ThreadingHTTPServer)(("", 0), Handler, False)
server.socket.close()
server.socket = socket.socket(fileno=0)
threading.Thread(target=hand_out, daemon=True).start()
server.serve_forever()
