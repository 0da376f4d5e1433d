"""A server of nothing but its watching: python watched.py STORE [SECONDS [DEADLINE]]: prints the port and
the processes, then counts what it is told.

A master, one worker and the process that answers over HTTP, each by a fork, with the page between them. Lines on standard
input: `count` lets the worker count, `kill` ends it, `begin` starts another one in its place, `stop` stops its loop.
SECONDS: for how long a process may do nothing; DEADLINE: for how long a client may take.
"""

import os
import signal
import socket
import sys
import threading
import time

from fastgrey.serve import board as cells, web
from fastgrey.serve.board import Board
from fastgrey.serve.watch import Watch


def beating(row):
    while True:
        row.beat()
        time.sleep(0.05)


def work(row, orders, done):
    row.begin()
    threading.Thread(target=beating, args=(row,), daemon=True).start()
    made = 0
    while os.read(orders, 1):
        row.add(cells.CONNECTIONS, 2)
        row.set(cells.OPEN, 1)
        made += 1
        row.tallied({"requests": {("plain", "reject"): made}, "broken": made, "timeouts": 0, "failed": made,
                     "took": [0, made, *[0] * 12, 2 * made], "took_sum": made * 120_000_200_000}, made)
        os.write(done, b"+")
    os._exit(0)


def fork(task, *arguments):
    child = os.fork()
    if child == 0:
        try:
            task(*arguments)
        finally:
            os._exit(1)
    return child


def main():
    store, *seconds = sys.argv[1:]
    for name, value in zip(("SILENCE", "DEADLINE"), map(float, seconds), strict=False):
        setattr(web, name, value)
    board = Board()
    board.master.begin()
    board.master.set(cells.WANTED, 1)
    row = board.claim()
    orders, ordering = os.pipe()
    done, doing = os.pipe()
    worker = fork(work, row, orders, doing)
    listener = web.listen("127.0.0.1", 0)
    watcher = fork(web.run, listener, board, Watch(store), os.getpid())
    threading.Thread(target=beating, args=(board.master,), daemon=True).start()
    print(listener.getsockname()[1], worker, watcher, flush=True)
    for line in sys.stdin:
        if line == "count\n":
            os.write(ordering, b"+")
            os.read(done, 1)
        elif line == "kill\n":
            os.kill(worker, signal.SIGKILL)
            os.waitpid(worker, 0)
            row.end()
            board.master.add(cells.RESTARTS)
        elif line == "begin\n":
            row = board.claim()
            worker = fork(work, row, orders, doing)
        elif line == "stop\n":
            os.kill(worker, signal.SIGSTOP)
        print("done", flush=True)
    for child in (worker, watcher):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
