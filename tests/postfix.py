"""A Postfix of its own: the installed programs under another configuration, with queue, boxes and port of their own."""

import functools
import shutil
import subprocess
from pathlib import Path

import pytest

from machine import NOBODY, tool
from mailing import MailServer, has_ipv6
from ports import free_port
from tcpserver import wait_until

SERVICES = """\
{addresses}
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""
SETTINGS = """\
compatibility_level = 3.6
queue_directory = {place}/queue
data_directory = {place}/data
maillog_file = {place}/maillog
maillog_file_prefixes = {place}
myhostname = mx.example
mydestination =
inet_protocols = {protocols}
smtpd_banner = mx.example ESMTP
smtpd_peername_lookup = no
smtpd_authorized_xclient_hosts = 127.0.0.0/8
smtpd_client_connection_count_limit = 0
virtual_mailbox_domains = example.net
virtual_mailbox_base = {place}/boxes
virtual_mailbox_maps = regexp:{place}/etc/boxes
virtual_uid_maps = static:{nobody}
virtual_gid_maps = static:{nobody}
mynetworks = {own}
"""
# Every mailbox is there but this one.
BOXES = """\
if !/^missing@/
/.@example\\.net$/ maildir/
endif
"""
# Folders of the queue, as postfix(1) makes them.
QUEUE = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "maildrop", "private",
         "public", "saved", "trace")
# The network that may send without being asked about.
OWN = "127.0.0.9"
# As Debian has it.
CHROOT = "y"


class Postfix(MailServer):
    """A Postfix that runs in a folder which every user may enter; more of main.cf is in settings."""

    def __init__(self, place, settings):
        super().__init__(place)
        if shutil.which("postconf") is None and shutil.which("sendmail"):
            pytest.skip("another mail server is installed here, which excludes Postfix")
        # Where it runs: paths in its configuration are relative to it.
        self.queue = place / "queue"
        for name, owner in (("etc", "root"), ("data", "postfix"), ("boxes", NOBODY), ("queue", "root"),
                            ("queue/pid", "root"), *((f"queue/{name}", "postfix") for name in QUEUE)):
            (place / name).mkdir()
            shutil.chown(place / name, owner)
        (place / "etc" / "boxes").write_text(BOXES)
        (place / "etc" / "main.cf").write_text(SETTINGS.format(
            place=place, protocols="all" if has_ipv6() else "ipv4", nobody=NOBODY, own=OWN) + settings)

    def _starts(self):
        self.port = free_port()
        hosts = [self.address, *["[::1]"] * has_ipv6()]
        (self.place / "etc" / "master.cf").write_text(SERVICES.format(
            addresses="\n".join(f"{host}:{self.port} inet n - {CHROOT} - - smtpd" for host in hosts)))
        begun = self.log().count("daemon started")
        # Without postfix(1), which looks for a second at what was made above. It becomes the leader of a session.
        self._leader = subprocess.Popen([_daemons() / "master", "-c", self.place / "etc"], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: self._leader.poll() is not None or self.log().count("daemon started") > begun)
        return self._leader.poll() is None

    def on_its_way(self):
        """Whether there are messages in the queue."""
        queues = ("maildrop", "incoming", "active", "deferred", "hold", "corrupt")
        return any(file.is_file() for name in queues for file in (self.queue / name).rglob("*"))

    def log(self):
        """What Postfix logged."""
        file = self.place / "maillog"
        return file.read_text(errors="replace") if file.exists() else ""


@functools.cache
def _daemons():
    """Where the programs are that master starts."""
    asked = [tool("postconf"), "-d", "-h", "daemon_directory"]
    return Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
