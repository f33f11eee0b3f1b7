"""A local HTTP server that drops connections and may know no ranges."""

import contextlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        if not self.server.heads:
            self.send_error(501)
            return
        body = self.server.files.get(self.path.removeprefix('/'))
        self.send_response(404 if body is None else 200)
        if body is not None:
            self.send_header('Content-Length', str(len(body)))
        self.end_headers()

    def do_GET(self):
        server, name = self.server, self.path.removeprefix('/')
        asked = self.headers.get('Range')
        server.requests.append((name, asked))
        if name not in server.files:
            self.send_error(404)
            return
        body, start, status = server.files[name], 0, 200
        if asked and server.ranges:
            start, status = int(re.fullmatch(r'bytes=(\d+)-', asked)[1]), 206
        self.send_response(status)
        if status == 206:
            self.send_header('Content-Range', f'bytes {start}-{len(body) - 1}/{len(body)}')
        self.send_header('Content-Length', str(len(body) - start))
        self.end_headers()
        # A drop: fewer bytes than announced, then the connection ends.
        self.wfile.write(body[start:][:server.drops.pop(0) if server.drops else None])

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def bad_server():
    """A server at `url` that serves `files` ({name: bytes}) and notes its `requests`, (name, Range header).

    `ranges` and `heads` say whether it knows ranges and HEAD requests (which it does not note), `drops` after how many
    bytes it drops each of the next answers.
    """
    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.files, server.ranges, server.heads, server.drops, server.requests = {}, True, True, [], []
    server.url = f'http://127.0.0.1:{server.server_port}'
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
