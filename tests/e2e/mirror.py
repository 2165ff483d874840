"""An app that shows what reached it, and answers in the ways in which a front may go wrong."""

MIRROR = r'''
import base64, hashlib, http.server, json, os, threading

more = threading.Event()

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        name = self.path.partition("?")[0].strip("/")
        answer = {"events": self.events, "more": self.more, "download": self.download, "echo": self.echo}
        answer.get(name, self.seen)()

    def do_PUT(self):
        left, digest = int(self.headers["Content-Length"]), hashlib.sha256()
        while left:
            piece = self.rfile.read(min(left, 65536))
            left -= len(piece)
            digest.update(piece)
        self.whole(digest.hexdigest().encode())

    def seen(self):
        self.whole(json.dumps({"path": self.path, "headers": self.headers.items()}).encode())

    def download(self):
        self.whole(b"0123456789abcdef" * 655360)

    def events(self):
        """One event, and the next when somebody asks for more."""
        more.clear()
        self.head(200, "text/event-stream", Connection="close")
        for text in (b"data: first\n\n", b"data: second\n\n"):
            self.wfile.write(text)
            more.wait(60)
        self.close_connection = True

    def more(self):
        more.set()
        self.whole(b"")

    def echo(self):
        """A websocket that sends each message back."""
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.head(101, "", Upgrade="websocket", Connection="Upgrade", Sec_WebSocket_Accept=accept)
        while (first := self.rfile.read(2)) and first[0] != 0x88:
            size = first[1] & 127
            longer = self.rfile.read({126: 2, 127: 8}.get(size, 0))
            mask = self.rfile.read(4)
            data = self.rfile.read(int.from_bytes(longer, "big") if longer else size)
            data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
            self.wfile.write(bytes([first[0], size]) + longer + data)
        self.close_connection = True

    def whole(self, data):
        self.head(200, "text/plain", Content_Length=str(len(data)))
        self.wfile.write(data)

    def head(self, status, kind, **headers):
        self.send_response(status)
        for name, value in {"Content_Type": kind, **headers}.items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
'''

FILES = {"app.py": MIRROR, "Procfile": "web: python app.py\n"}
