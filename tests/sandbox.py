"""A systemd unit's sandbox without systemd: what its options ask of the kernel, asked in the same way.

    python tests/sandbox.py UNIT STORE WORD ...    run a command in the unit's sandbox, STORE at /var/lib/fastgrey

As root. Options that are not carried out here are in INERT, with the reason; any other one is an error, so that an
option cannot be added to a unit without being tried. Numbers are of x86-64 and arm64 alike, from the kernel's headers.
"""

import ctypes
import grp
import os
import pwd
import resource
import socket
import subprocess
import sys
from pathlib import Path

STORE = "/var/lib/fastgrey"
NAMESPACES = {"mount": 0x20000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000, "net": 0x40000000}
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_MDWE, PR_GET_MDWE = 24, 38, 65, 66
PR_MDWE_REFUSE_EXEC_GAIN = 1
SCMP_ACT_ALLOW, SCMP_ACT_ERRNO, SCMP_CMP_MASKED_EQ = 0x7FFF0000, 0x00050000, 7
SCMP_CMP_EQ = 4
EPERM, EAFNOSUPPORT = 1, 97
# AF_MAX of the kernel's headers.
FAMILIES = 46
SPECIAL_BITS = (0o4000, 0o2000)

INERT = {
    "Type": "systemd's own", "ExecStart": "the command is given", "TimeoutStartSec": "systemd's own",
    "PrivateDevices": "the control group's", "ProtectControlGroups": "read-only with all else",
    "ProtectKernelTunables": "read-only with all else", "ProtectKernelModules": "no capability, and filtered",
    "ProtectKernelLogs": "no capability, and filtered", "ProtectClock": "no capability, and filtered",
    "ProtectProc": "needs a mount of proc by the manager", "KeyringMode": "filtered", "IPAddressDeny": "no network",
    "LockPersonality": "nothing here asks for it", "RestrictRealtime": "nothing here asks for it",
    "SystemCallArchitectures": "one architecture here", "SystemCallErrorNumber": "EPERM is the one used",
    "PrivateMounts": "mounts are private with all else", "NotifyAccess": "systemd's own",
    "ExecReload": "systemd's own", "Restart": "systemd's own", "RestartSec": "systemd's own",
    "WatchdogSec": "systemd's own", "KillMode": "systemd's own", "TimeoutStopSec": "systemd's own",
}
APPLIED = {
    "Environment", "User", "Group", "ReadWritePaths", "ProtectSystem", "PrivateTmp", "ProtectHome", "UMask",
    "NoNewPrivileges", "CapabilityBoundingSet", "PrivateUsers", "RestrictSUIDSGID", "PrivateNetwork", "PrivateIPC",
    "RestrictAddressFamilies", "ProtectHostname", "MemoryDenyWriteExecute", "RestrictNamespaces", "SystemCallFilter",
    "RuntimeDirectory", "LimitNOFILE",
}

libc = ctypes.CDLL(None, use_errno=True)


class MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


class Comparison(ctypes.Structure):
    _fields_ = [("argument", ctypes.c_uint), ("operator", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def options(unit):
    """The values of each option of [Service], in order."""
    found, section = {}, ""
    # A line that goes on: the backslash counts as a blank.
    for line in Path(unit).read_text().replace("\\\n", " ").splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def ask(result, what):
    """The result of a call of the C library, or its error."""
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), what)
    return result


def mount(source, target, kind=None, flags=0, data=None):
    Path(target).mkdir(parents=True, exist_ok=True)
    ask(libc.mount(str(source).encode(), str(target).encode(), kind and kind.encode(), flags, data and data.encode()),
        f"mount {target}")


def set_read_only(path, read_only):
    attributes = MountAttributes(*(MOUNT_ATTR_RDONLY, 0) if read_only else (0, MOUNT_ATTR_RDONLY))
    ask(libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, str(path).encode(), AT_RECURSIVE, ctypes.byref(attributes),
                     ctypes.sizeof(attributes)), f"mount_setattr {path}")


# What a command of this project needs, wherever it is.
NEEDED = [sys.base_prefix, sys.prefix, str(Path(__file__).resolve().parents[1])]


def closed(path):
    """The directories on the way to a path into which others than their owner may not go."""
    return [str(parent) for parent in Path(path).parents if not parent.stat().st_mode & 0o001]


def mounts(store, writable, run):
    """All is read-only but the store and, where the unit has it, a directory below /run (run: its name, user and group).
    /tmp and the homes are empty, but for this Python and this checkout; so are directories that keep others from these."""
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("tmpfs", "/var/lib", "tmpfs", data="mode=755")
    mount(store, STORE, flags=MS_BIND)
    # The outermost last: it hides the others.
    hidden = sorted({place for path in NEEDED for place in closed(path)}, reverse=True)
    for number, path in enumerate(NEEDED):
        mount(path, f"/var/lib/needed/{number}", flags=MS_BIND | MS_REC)
    for place, mode in (("/tmp", 1777), ("/var/tmp", 1777), ("/root", 755), ("/home", 755),
                        *((place, 755) for place in hidden)):
        mount("tmpfs", place, "tmpfs", data=f"mode={mode}")
    for number, path in enumerate(NEEDED):
        mount(f"/var/lib/needed/{number}", path, flags=MS_BIND | MS_REC)
    if run is not None:
        mount("tmpfs", "/run", "tmpfs", data="mode=755")
        mount("tmpfs", f"/run/{run[0]}", "tmpfs", data="mode=755,uid={1},gid={2}".format(*run))
    set_read_only("/", True)
    # Of proc, systemd leaves writable what is of processes.
    for path in (*writable, "/tmp", "/var/tmp", "/proc", *([f"/run/{run[0]}"] if run else [])):
        set_read_only(path, False)


def map_users(uid, gid):
    """Another user namespace, with root, the user and its group, and nobody else."""
    asked, asking = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(asking)
            os.read(asked, 1)
            for kind, number in (("uid", uid), ("gid", gid)):
                Path(f"/proc/{parent}/{kind}_map").write_text(f"0 0 1\n{number} {number} 1\n")
            status = 0
        finally:
            os._exit(status)
    ask(libc.unshare(NAMESPACES["user"]), "unshare")
    os.close(asking)
    assert os.waitpid(child, 0)[1] == 0, "cannot map users"


def numbers(user, group):
    """Of a user and a group that need not be there."""
    try:
        uid = pwd.getpwnam(user).pw_uid
    except KeyError:
        uid = 64_321
    try:
        return uid, grp.getgrnam(group).gr_gid
    except KeyError:
        return uid, int(os.environ["SANDBOX_GROUP"])


def has_mdwe():
    """Whether this kernel (6.3 and later) can refuse memory that is written and then executed."""
    return libc.prctl(PR_GET_MDWE, 0, 0, 0, 0) >= 0


def filters(unit):
    """The system calls to allow: groups and names, less those after ~."""
    allowed = set()
    for value in unit["SystemCallFilter"]:
        calls = {call for name in value.lstrip("~").split() for call in members(name)}
        allowed = allowed - calls if value.startswith("~") else allowed | calls
    # What systemd always lets through, to get as far as the command.
    return allowed | members("@default") | {"execve"}


def members(name):
    if not name.startswith("@"):
        return {name}
    command = ["systemd-analyze", "syscall-filter", name]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    words = [line.strip() for line in said.splitlines()[1:]]
    return {call for word in words if word and not word.startswith("#") for call in members(word)}


class Seccomp:
    """A filter of libseccomp: rules, then load."""

    def __init__(self, default):
        self.library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self.library.seccomp_init.restype = ctypes.c_void_p
        self.context = ctypes.c_void_p(self.library.seccomp_init(ctypes.c_uint32(default)))

    def rule(self, action, name, *comparisons):
        """Names that this architecture has not are passed over."""
        number = self.library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            array = (Comparison * len(comparisons))(*comparisons)
            result = self.library.seccomp_rule_add_array(self.context, ctypes.c_uint32(action), number,
                                                         len(comparisons), array)
            assert result == 0, (name, os.strerror(-result))

    def load(self):
        result = self.library.seccomp_load(self.context)
        assert result == 0, os.strerror(-result)


def restrictions(unit):
    """Filters like those that systemd makes."""
    allowed = filters(unit)
    denied = Seccomp(SCMP_ACT_ALLOW)
    families = unit["RestrictAddressFamilies"][0].split()
    if families == ["none"]:
        denied.rule(SCMP_ACT_ERRNO | EAFNOSUPPORT, "socket")
    else:
        for number in set(range(FAMILIES)) - {int(getattr(socket, name)) for name in families}:
            denied.rule(SCMP_ACT_ERRNO | EAFNOSUPPORT, "socket", Comparison(0, SCMP_CMP_EQ, number, 0))
    for name, place in (("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("mkdir", 1), ("mkdirat", 2), ("mknod", 1),
                        ("mknodat", 2), ("creat", 1), ("open", 2), ("openat", 3)):
        for bit in SPECIAL_BITS:
            denied.rule(SCMP_ACT_ERRNO | EPERM, name, Comparison(place, SCMP_CMP_MASKED_EQ, bit, bit))
    for name in ("unshare", "setns"):
        denied.rule(SCMP_ACT_ERRNO | EPERM, name)
    allow = Seccomp(SCMP_ACT_ERRNO | EPERM)
    for name in sorted(allowed | {"seccomp"}):
        allow.rule(SCMP_ACT_ALLOW, name)
    allow.load()
    denied.load()


def enter(unit, store):
    """Put this process into the sandbox."""
    unknown = unit.keys() - INERT.keys() - APPLIED
    assert not unknown, f"not tried here: {sorted(unknown)}"
    yes = {name for name, values in unit.items() if values == ["true"]}
    uid, gid = numbers(unit["User"][0], unit["Group"][0])
    kinds = ["mount", *(["net"] if "PrivateNetwork" in yes else []), *(["ipc"] if "PrivateIPC" in yes else []),
             *(["uts"] if "ProtectHostname" in yes else [])]
    ask(libc.unshare(sum(NAMESPACES[kind] for kind in kinds)), "unshare")
    assert unit["ProtectSystem"] == ["strict"] and {"PrivateTmp", "ProtectHome"} <= yes
    run = unit.get("RuntimeDirectory")
    mounts(store, unit["ReadWritePaths"], run and (run[0], uid, gid))
    if limit := unit.get("LimitNOFILE"):
        # Where this is a container, not more than that has.
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        files = int(limit[0]) if most == resource.RLIM_INFINITY else min(int(limit[0]), most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    if "PrivateUsers" in yes:
        map_users(uid, gid)
    if unit["CapabilityBoundingSet"] == [""]:
        for number in range(64):
            libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
    os.setgroups([gid])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    os.umask(int(unit["UMask"][0], 8))
    if "NoNewPrivileges" in yes:
        ask(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    if "MemoryDenyWriteExecute" in yes:
        libc.prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)
    restrictions(unit)


def main():
    unit_file, store, *words = sys.argv[1:]
    unit = options(unit_file)
    environment = dict(entry.split("=", 1) for value in unit["Environment"] for entry in value.split())
    enter(unit, store)
    os.chdir("/")
    os.execve(words[0], words, {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **environment})


if __name__ == "__main__":
    main()
