"""Serves the files of a folder over HTTP, one connection at a time, in as little memory as Python can."""

import _socket  # the C module itself: `socket` would import ten times as much
import posix
import sys

host, port, root = sys.argv[1], int(sys.argv[2]), sys.argv[3]
FILES = {"/": "index.html", "/identity": "identity", "/healthz": "healthz"}


def answer(path: str) -> tuple[str, bytes]:
    name = FILES.get(path.split("?")[0])
    if name is None:
        return "404 Not Found", b"not found\n"
    descriptor = posix.open(root + "/" + name, posix.O_RDONLY)
    body = posix.read(descriptor, 65536)
    posix.close(descriptor)
    return "200 OK", body


def serve(connection: _socket.socket) -> None:
    connection.settimeout(2)
    request = b""
    while b"\r\n\r\n" not in request and len(request) < 8192:
        received = connection.recv(4096)
        if not received:
            return
        request += received
    method, path, _ = (request.split(b"\r\n")[0].decode("latin-1") + "  ").split(" ", 2)
    status, body = answer(path)
    head = f"HTTP/1.0 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    connection.sendall(head.encode() + (b"" if method == "HEAD" else body))


listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
listener.bind((host, port))
listener.listen(64)
while True:
    descriptor, _ = listener._accept()  # type: ignore[attr-defined]
    connection = _socket.socket(fileno=descriptor)
    try:
        serve(connection)
    except (OSError, ValueError):
        pass  # a client that went away or spoke no HTTP concerns nobody else
    finally:
        connection.close()
