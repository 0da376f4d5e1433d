"""Real programs killed (SIGKILL) at a drawn moment: some time after their start, or at one of their system calls."""

import ctypes
import os
import signal
import subprocess
import time

PTRACE_TRACEME, PTRACE_SYSCALL, PTRACE_SETOPTIONS, PTRACE_O_TRACESYSGOOD = 0, 24, 0x4200, 1

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def _ptrace(request, process, data=0):
    if libc.ptrace(request, process, None, data) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def after(seconds, command, **options):
    """Kill a command so many seconds after its start; None lets it live. Gives exit code and standard error."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, **options)
    if seconds is not None:
        time.sleep(seconds)
        process.kill()
    line = process.communicate(timeout=60)[1]
    return process.returncode, line


def at_call(number, command, **options):
    """Kill a command when it enters its system call of this number, counted from 1; 0 lets it live. It must be one
    process with one thread. Gives exit code, standard error, and how many calls it entered."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                               preexec_fn=lambda: _ptrace(PTRACE_TRACEME, 0), **options)
    calls, entering, begun = 0, True, False
    while True:
        status = os.waitpid(process.pid, 0)[1]
        if not os.WIFSTOPPED(status):
            break
        passed_on = os.WSTOPSIG(status)
        if not begun:
            # The stop at the exec.
            _ptrace(PTRACE_SETOPTIONS, process.pid, PTRACE_O_TRACESYSGOOD)
            begun, passed_on = True, 0
        elif passed_on == signal.SIGTRAP | 0x80:
            calls += entering
            if entering and calls == number:
                os.kill(process.pid, signal.SIGKILL)
                continue
            entering, passed_on = not entering, 0
        _ptrace(PTRACE_SYSCALL, process.pid, passed_on)
    process.returncode = os.waitstatus_to_exitcode(status)
    with process.stderr as errors:
        return process.returncode, errors.read(), calls
