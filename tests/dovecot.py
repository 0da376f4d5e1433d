"""Dovecot's side of its authentication protocol (version 1.2), as much of it as Postfix needs to let a user log in."""

import base64
import socketserver
import threading


class _Session(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t00\nDONE\n")
        for line in self.rfile:
            command, *fields = line.decode().rstrip("\n").split("\t")
            if command == "AUTH":
                (given,) = [field.partition("=")[2] for field in fields if field.startswith("resp=")]
                _, user, password = base64.b64decode(given).decode().split("\0")
                good = self.server.users.get(user) == password
                said = f"OK\t{fields[0]}\tuser={user}\n" if good else f"FAIL\t{fields[0]}\n"
                self.wfile.write(said.encode())


class Logins(socketserver.ThreadingUnixStreamServer):
    """A socket at which the users, passwords by name, can log in; for use in `with`."""

    daemon_threads = True

    def __init__(self, path, users):
        super().__init__(str(path), _Session)
        path.chmod(0o666)
        self.users = users
        self._thread = threading.Thread(target=self.serve_forever)
        self._thread.start()

    def __exit__(self, *error):
        self.shutdown()
        self._thread.join()
        super().__exit__(*error)
