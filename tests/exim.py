"""Debian's Exim, unpacked and not installed (`make exim`), with configuration, spool, boxes and port of its own.

Exim looks for a user by name that only its installation makes: nss_wrapper shows it one.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from mailing import MailServer, has_ipv6
from ports import free_port
from tcpserver import wait_until

UNPACKED = Path(__file__).resolve().parents[1] / "build" / "exim"
USER, NUMBER = "Debian-exim", 64_210
# The network that may send without being asked about.
OWN = "127.0.0.9"
# Into @ACL@ goes what follows the checks of a recipient.
CONFIGURATION = """\
primary_hostname = mx.example
exim_path = @PROGRAM@
keep_environment = LD_PRELOAD : NSS_WRAPPER_PASSWD : NSS_WRAPPER_GROUP
spool_directory = @PLACE@/spool
log_file_path = @PLACE@/spool/%slog
pid_file_path = @PLACE@/spool/pid
deliver_drop_privilege
local_interfaces = <; @ADDRESSES@
daemon_smtp_ports = @PORT@
daemon_startup_retries = 0
smtp_banner = mx.example ESMTP
smtp_accept_max = 0
tls_advertise_hosts =
host_lookup =
rfc1413_hosts =
smtputf8_advertise_hosts = *
acl_smtp_rcpt = acl_check_rcpt

begin acl

acl_check_rcpt:
  accept  hosts = @OWN@
  accept  authenticated = *
  require domains = example.net
          verify = recipient
@ACL@
  accept

begin routers

missing:
  driver = redirect
  local_parts = missing
  data = :fail: no such user
  allow_fail

box:
  driver = accept
  domains = example.net
  transport = box

begin transports

box:
  driver = appendfile
  directory = @PLACE@/boxes/maildir
  maildir_format
  envelope_to_add
  return_path_add
  user = Debian-exim

begin authenticators

plain:
  driver = plaintext
  public_name = PLAIN
  server_condition = ${if eq{$auth3}{secret}}
  server_set_id = $auth2
"""


def unpacked():
    """The program; skips where `make exim` did not bring it."""
    program = UNPACKED / "usr" / "sbin" / "exim4"
    if not program.exists():
        pytest.skip("no Exim in build/exim; as root: make exim")
    return program


class Exim(MailServer):
    """An Exim that runs in a folder which every user may enter; acl is what it does for each recipient."""

    def __init__(self, place, acl):
        super().__init__(place)
        # Others than root have no way into a checkout, and the program no need to be set-user-ID.
        self._program = place / "exim4"
        shutil.copyfile(unpacked(), self._program)
        self._program.chmod(0o755)
        for name in ("spool", "boxes"):
            (place / name).mkdir()
            shutil.chown(place / name, NUMBER, NUMBER)
        for name, line in (("passwd", f"{USER}:x:{NUMBER}:{NUMBER}::/:/bin/false\n"),
                           ("group", f"{USER}:x:{NUMBER}:\n")):
            (place / name).write_text(Path("/etc", name).read_text() + line)
        self._environment = {"PATH": os.environ["PATH"], "LD_PRELOAD": "libnss_wrapper.so",
                             "NSS_WRAPPER_PASSWD": str(place / "passwd"), "NSS_WRAPPER_GROUP": str(place / "group")}
        self._acl = acl

    def _starts(self):
        self.port = free_port()
        configuration = CONFIGURATION
        for name, value in {"PROGRAM": self._program, "ACL": self._acl, "PLACE": self.place, "OWN": OWN,
                            "PORT": self.port, "ADDRESSES": " ; ".join([self.address, *["::1"] * has_ipv6()])}.items():
            configuration = configuration.replace(f"@{name}@", str(value))
        (self.place / "exim.conf").write_text(configuration)
        with open(self.place / "errors", "ab") as errors:
            self._leader = subprocess.Popen(
                self._command("-bdf"), stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, env=self._environment,
                start_new_session=True)
        wait_until(lambda: self._leader.poll() is not None or "listening for SMTP" in self.log())
        return self._leader.poll() is None

    def _command(self, *words):
        return [self._program, "-C", self.place / "exim.conf", *words]

    def expanded(self, text):
        """What becomes of a text that Exim expands, less the white space around it."""
        return self._run("-be", text).strip()

    def answers(self, client, name, *lines):
        """The replies to these lines after the greeting, said by a client of that address and confirmed name."""
        said = self._run("-bs", "-oMa", client, *["-oMs", name] * bool(name), input="\r\n".join([*lines, "QUIT", ""]))
        return [line for line in said.splitlines() if line[3:4] == " "][1:-1]

    def _run(self, *words, **options):
        return subprocess.run(self._command(*words), env=self._environment, capture_output=True, text=True, timeout=120,
                              check=True, **options).stdout

    def on_its_way(self):
        """Whether there are messages in the spool."""
        return any((self.place / "spool" / "input").rglob("*-H"))

    def log(self):
        """What Exim logged, and what it said otherwise."""
        files = [*self.place.glob("spool/*log"), *self.place.glob("errors")]
        return "".join(file.read_text(errors="replace") for file in files)
