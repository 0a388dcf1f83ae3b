"""Tasks that behave, and tasks that do not."""

import os
import signal
import sys
import threading
import time

LOADED_BY = os.getpid()


def nop():
    return None


def add(a, b=1):
    print("adding", a, b)
    return a + b


def loaded_by():
    return LOADED_BY


def pid():
    return os.getpid()


def environment(name):
    return os.environ.get(name)


def where():
    return os.getcwd()


def inner():
    raise ValueError("bad row")


def fails():
    import json

    try:
        json.loads("{")
    except ValueError:
        inner()


class Silent(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def silent():
    raise Silent


def unstorable():
    return threading.Lock()


def leaves(code):
    os._exit(code)


def exits(code):
    sys.exit(code)


def forks():
    """Both sides come back."""
    os.fork()
    return os.getpid()


def closes_out():
    print("before")
    sys.stdout.flush()
    os.close(1)
    return "fine"


def closes_stream():
    sys.stdout.close()
    sys.stderr.close()
    return "fine"


def binary():
    os.write(2, bytes(range(256)))
    print("\udcff lone surrogate")
    return "fine"


def deaf():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("deaf", flush=True)
    while True:
        time.sleep(60)


def eats_memory():
    return len(bytearray(1 << 31))


def large(size):
    return "x" * size


def deep():
    return deep()


def thread_after():
    def later():
        time.sleep(0.05)
        print("later")

    threading.Thread(target=later).start()
    return "first"


def not_a_number():
    return float("nan")


def circular():
    loop = []
    loop.append(loop)
    return loop


def draws():
    import random

    return random.random()


def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


class Group:
    @staticmethod
    def method():
        return "in a class"


constant = 3
