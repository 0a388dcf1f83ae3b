import os
import signal
import subprocess
import sys
import time

from kobza import task, workflow


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("not even this")


def deeper(n):
    return n / 0


@task
def raises():
    deeper(1)


@task
def mute():
    raise Mute


@task
def unstorable():
    return object()


@task
def exits():
    os._exit(0)


@task
def exits_with_code():
    os._exit(7)


@task
def killed():
    os.kill(os.getpid(), signal.SIGKILL)


@task(memory="300MB")
def hungry():
    return len(bytearray(2_000_000_000))


@task
def forks_and_leaves():
    if os.fork() == 0:
        time.sleep(600)
    return "parent"


@task
def both_return():
    os.fork()
    return 1


@task
def closes_stdout():
    os.close(1)
    return "fine"


@task
def binary_stderr():
    os.write(2, bytes(range(256)) * 10)
    return "fine"


@task(timeout=1)
def ignores_term():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)


@task(timeout=1)
def grandchildren():
    child = subprocess.Popen(["sleep", "613613"])
    child.wait()


@task
def says_no():
    sys.exit("no more")


@task
def fine():
    return 42


@workflow
def bad():
    for one in (raises, mute, unstorable, exits, exits_with_code, killed, hungry, forks_and_leaves,
                both_return, closes_stdout, binary_stderr, ignores_term, grandchildren, says_no):
        one()
    fine()
