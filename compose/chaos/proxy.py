"""A TCP proxy whose wires can be cut: nothing passes, nothing is closed, as when a cable is pulled."""
import selectors
import socket
import threading


class Proxy:
    def __init__(self, listen, to):
        self.to, self.open = to, threading.Event()
        self.open.set()
        self.server = socket.create_server(("127.0.0.1", listen))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self.connect, args=(client,), daemon=True).start()

    def connect(self, client):
        self.open.wait()
        try:
            upstream = socket.create_connection(("127.0.0.1", self.to))
        except OSError:
            client.close()
            return
        selector = selectors.DefaultSelector()
        selector.register(client, selectors.EVENT_READ, upstream)
        selector.register(upstream, selectors.EVENT_READ, client)
        try:
            while True:
                for key, _ in selector.select():
                    data = key.fileobj.recv(1 << 16)
                    # What is under way when the wire is cut arrives when it is mended.
                    self.open.wait()
                    if not data:
                        return
                    key.data.sendall(data)
        except OSError:
            pass
        finally:
            client.close()
            upstream.close()

    def cut(self):
        self.open.clear()

    def mend(self):
        self.open.set()

    def close(self):
        self.mend()
        self.server.close()
