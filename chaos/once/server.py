"""Answers over HTTP who it is, and writes down when it starts and when it is told to end."""

import _socket  # the C module itself: `socket` would import ten times as much
import posix
import signal
import sys

host, port, identity, evidence = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
HEAD = "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n"


def note(what: str) -> None:
    descriptor = posix.open(evidence, posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT, 0o600)
    posix.write(descriptor, f"{what}\n".encode())
    posix.close(descriptor)


def end(*_: object) -> None:
    note("ended")
    posix._exit(0)


def serve(connection: _socket.socket) -> None:
    connection.settimeout(10)
    request = b""
    while b"\r\n\r\n" not in request and len(request) < 8192:
        received = connection.recv(4096)
        if not received:
            return
        request += received
    descriptor = posix.open(identity, posix.O_RDONLY)
    body = posix.read(descriptor, 65536)
    posix.close(descriptor)
    connection.sendall(HEAD.format(len(body)).encode() + (b"" if request.startswith(b"HEAD") else body))


signal.signal(signal.SIGTERM, end)
note("started")
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
