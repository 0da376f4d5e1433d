"""Real programs killed (SIGKILL) at a drawn moment: some time after their start, or at one of their system calls."""

import ctypes
import os
import signal
import subprocess
import time

PTRACE_TRACEME, PTRACE_DETACH, PTRACE_SYSCALL, PTRACE_SETOPTIONS, PTRACE_O_TRACESYSGOOD = 0, 17, 24, 0x4200, 1

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
    try:
        line = process.communicate(timeout=300)[1]
    finally:
        process.kill()
    return process.returncode, line


def at_call(number, command, **options):
    """Kill a command when it enters its system call of this number, counted from 1; 0 lets it live. It must be one
    process with one thread. Gives exit code, standard error, and how many calls it entered."""
    process, calls = _traced(number, command, options)
    if process.returncode is None:
        process.kill()
    with process.stderr as errors:
        return process.wait(60), errors.read(), calls


def stopped_at_call(number, command, **options):
    """Stop a command (SIGSTOP) when it has made that system call; the process, or one that ended before it."""
    process, _ = _traced(number, command, options)
    if process.returncode is None:
        # What a tracer leaves a process with is delivered on its way back from the call.
        _ptrace(PTRACE_DETACH, process.pid, signal.SIGSTOP)
    return process


def _traced(number, command, options):
    """Run a command until it enters that call, or to its end; the process and how many calls it entered."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                               preexec_fn=lambda: _ptrace(PTRACE_TRACEME, 0), **options)
    calls, entering, begun = 0, True, False
    while True:
        status = os.waitpid(process.pid, 0)[1]
        if not os.WIFSTOPPED(status):
            process.returncode = os.waitstatus_to_exitcode(status)
            return process, calls
        passed_on = os.WSTOPSIG(status)
        if not begun:
            # The stop at the exec.
            _ptrace(PTRACE_SETOPTIONS, process.pid, PTRACE_O_TRACESYSGOOD)
            begun, passed_on = True, 0
        elif passed_on == signal.SIGTRAP | 0x80:
            calls += entering
            if entering and calls == number:
                return process, calls
            entering, passed_on = not entering, 0
        _ptrace(PTRACE_SYSCALL, process.pid, passed_on)
