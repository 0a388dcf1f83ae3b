"""The parent: imports once, then forks workers when asked.

Frames from the host, after which it sends nothing but requests:

``{"op": "start", "path": [...], "adapter": "package.runner", "load": [{"module": ...} | {"file":
...}], "import_timeout": 60}`` → ``ready`` with what was found, or ``failed`` with an error. The adapter
is a module of the system whose tasks these are; see the package.

``{"op": "fork", "tasks": 1}`` with one descriptor per worker, the worker's end of its channel
→ ``{"event": "forked", "pids": [...]}``, now and then with ``rss``, the parent's memory in bytes.

``{"op": "parent"}`` with two descriptors, the channel and the log of a new parent, forked from this one
with all that it has imported → ``{"event": "forked", "pids": [...]}``. The new one expects ``start``.

``{"op": "status"}`` → ``{"event": "status", "rss": bytes, "threads": n}``.

The parent ends when its channel does.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import platform
import signal
import sys
import sysconfig
import threading
import time
import types
from collections.abc import Callable
from typing import Any

from . import PROTOCOL, failure, loading, worker
from .wire import BadFrame, Channel, Closed, own_channel

#: Seconds that imports may take when the host does not say.
IMPORT_TIMEOUT_DEFAULT = 60.0
#: Requests to fork between two looks at the parent's own memory.
FORKS_PER_LOOK = 8
#: Most source files reported for the watch on changed code.
FILES_MAX = 5000


class ImportTimeout(BaseException):
    """Imports took too long. Not an ``Exception``: the module at hand must not swallow it."""


def native_threads() -> int:
    return len(os.listdir("/proc/self/task"))


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Forker:
    """Makes children that belong to this process's own parent.

    The cheap way is one ``clone`` with ``CLONE_PARENT``; it passes by the handlers that libraries
    registered with ``pthread_atfork``, so it serves only where no library ever had threads. The
    general way is to fork twice: the middle process ends at once, and the host, a child subreaper,
    inherits its child.
    """

    _CLONE_PARENT = 0x8000
    _CLONE_CHILD_CLEARTID = 0x0020_0000
    _CLONE_CHILD_SETTID = 0x0100_0000
    _PR_GET_TID_ADDRESS = 40
    _SYSCALLS = {"x86_64": 56, "aarch64": 220}

    def __init__(self, direct: bool) -> None:
        self._clone = self._prepare() if direct else None

    @property
    def direct(self) -> bool:
        return self._clone is not None

    def fork(self) -> int:
        """As ``os.fork``, but the child's parent is ours."""
        return self._clone() if self._clone is not None else self._twice()

    def _prepare(self) -> Callable[[], int] | None:
        number = self._SYSCALLS.get(platform.machine())
        free_threaded = getattr(sys, "_is_gil_enabled", lambda: True)() is False
        if number is None or free_threaded or sys.platform != "linux":
            return None
        # PyDLL keeps the interpreter lock, as os.fork does.
        libc = ctypes.PyDLL(None, use_errno=True)
        address = ctypes.c_void_p()
        # Where the C library keeps the thread's number: the kernel must renew it in the child.
        if libc.prctl(self._PR_GET_TID_ADDRESS, ctypes.byref(address), 0, 0, 0) != 0:
            return None
        if not address.value or ctypes.c_int.from_address(address.value).value != os.getpid():
            return None
        flags = ctypes.c_ulong(
            self._CLONE_PARENT
            | self._CLONE_CHILD_SETTID
            | self._CLONE_CHILD_CLEARTID
            | signal.SIGCHLD
        )
        order = (address, None) if platform.machine() == "x86_64" else (None, address)
        call = (ctypes.c_long(number), flags, None, None, *order)
        api = ctypes.pythonapi
        for name in ("PyOS_BeforeFork", "PyOS_AfterFork_Child", "PyOS_AfterFork_Parent"):
            getattr(api, name).restype = None
        before, in_child = api.PyOS_BeforeFork, api.PyOS_AfterFork_Child
        in_parent = api.PyOS_AfterFork_Parent
        syscall = libc.syscall
        syscall.restype = ctypes.c_long

        def clone() -> int:
            before()
            pid = int(syscall(*call))
            if pid == 0:
                in_child()
                return 0
            in_parent()
            if pid < 0:
                error = ctypes.get_errno()
                raise OSError(error, os.strerror(error))
            return pid

        return clone

    def _twice(self) -> int:
        reader, writer = os.pipe()
        try:
            middle = os.fork()
            if middle == 0:
                os.close(reader)
                try:
                    pid = os.fork()
                except OSError as error:
                    os.write(writer, b"%d" % -(error.errno or 1))
                    os._exit(1)
                if pid == 0:
                    os.close(writer)
                    return 0
                os.write(writer, b"%d" % pid)
                os._exit(0)
            os.waitpid(middle, 0)
            pid = int(os.read(reader, 32) or b"-5")
        finally:
            if os.getpid() == self_pid():
                os.close(reader)
                os.close(writer)
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return pid


_self_pid = 0


def self_pid() -> int:
    """The parent's own process number: a child must not run the parent's clean-up."""
    return _self_pid


def _imports(message: dict[str, Any]) -> dict[str, Any]:
    """Does the imports. Returns what the host should know of them."""
    loading.add_paths(message.get("path") or [])
    failure.MACHINERY.extend(message.get("machinery") or [])
    timeout = float(message.get("import_timeout") or IMPORT_TIMEOUT_DEFAULT)
    began = time.monotonic()

    def overdue(_signal: int, _frame: types.FrameType | None) -> None:
        raise ImportTimeout(f"the imports took longer than {timeout:g} s")

    signal.signal(signal.SIGALRM, overdue)
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        name = message.get("adapter")
        adapter = importlib.import_module(name) if name else None
        load = getattr(adapter, "load", loading.load)
        loaded = [load(entry) for entry in message.get("load") or []]
        if hasattr(adapter, "prepare"):
            adapter.prepare(loaded)
        if hasattr(adapter, "rehearsal"):
            worker.rehearse({"runner": f"{name}:run", **adapter.rehearsal()})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    return {"import_ms": round((time.monotonic() - began) * 1000)}


def _source_files() -> list[list[Any]]:
    """The user's own source files among the loaded modules, and the folders of packages, as they
    are now."""
    found = {}
    # An installation changes the folder of packages.
    for folder in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        if os.path.isdir(folder):
            status = os.stat(folder)
            found[folder] = [folder, status.st_mtime_ns, status.st_size]
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if not isinstance(path, str) or failure.is_machinery(path) or failure.is_library(path):
            continue
        try:
            status = os.stat(path)
        except OSError:
            continue
        found[path] = [path, status.st_mtime_ns, status.st_size]
        if len(found) >= FILES_MAX:
            break
    return list(found.values())


def _mode() -> tuple[str, str | None, bool]:
    """Whether forking is safe now: mode, reason against it, and whether the cheap way will do."""
    extra = [
        thread.name for thread in threading.enumerate() if thread is not threading.main_thread()
    ]
    if extra:
        names = ", ".join(extra[:5])
        return "spawn", f"the imports started {len(extra)} Python thread(s): {names}", False
    if native_threads() == 1:
        return "fork", None, True
    # A library's pool of threads: some end them before a fork and start anew when needed. Try.
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    left = native_threads() - 1
    if left > 0:
        return (
            "spawn",
            f"the imports left {left} native thread(s) running that survive a fork",
            False,
        )
    return "fork", None, False


def serve(channel: Channel) -> int:
    global _self_pid
    _self_pid = os.getpid()
    worker.prepare_streams()
    try:
        message, _ = channel.receive()
    except (Closed, BadFrame):
        return 0
    if message.get("op") != "start":
        return 70
    try:
        report = _imports(message)
    except BaseException as error:
        failure.print_error(error)
        cause = "timeout" if isinstance(error, ImportTimeout) else "code"
        try:
            channel.send(
                {
                    "event": "failed",
                    "error": {
                        **failure.describe(error, cause),
                        "traceback": failure.render(error)[:20000],
                    },
                }
            )
        except Closed:
            pass
        return 1
    sys.stdout.flush()
    sys.stderr.flush()
    mode, reason, direct = _mode()
    forker = Forker(direct)
    gc.collect()
    gc.freeze()
    gc.disable()
    report |= {
        "event": "ready",
        "protocol": PROTOCOL,
        "pid": os.getpid(),
        "mode": mode,
        "reason": reason,
        "direct": forker.direct,
        "rss": resident_bytes(),
        "python": platform.python_version(),
        "files": _source_files(),
    }
    try:
        channel.send(report)
        requests = 0
        while True:
            message, fds = channel.receive()
            operation = message.get("op")
            if operation == "fork":
                requests += 1
                more = {"rss": resident_bytes()} if requests % FORKS_PER_LOOK == 0 else {}
                fork_workers(channel, forker, fds, int(message.get("tasks") or 1), more)
            elif operation == "parent":
                fork_parent(channel, forker, fds)
            elif operation == "status":
                channel.send(
                    {"event": "status", "rss": resident_bytes(), "threads": native_threads()}
                )
            else:
                for fd in fds:
                    os.close(fd)
                channel.send({"event": "refused", "message": f"unknown operation {operation!r}"})
    except Closed:
        return 0
    except BadFrame as error:
        os.write(2, f"parent: {error}\n".encode())
        return 70


def fork_workers(
    channel: Channel, forker: Forker, fds: list[int], tasks: int, more: dict[str, Any]
) -> None:
    """Forks one worker per descriptor, and tells their numbers. Does not return in a worker."""
    pids: list[int] = []
    problem = None
    for place, fd in enumerate(fds):
        try:
            pid = forker.fork()
        except OSError as error:
            problem = f"fork failed: {error}"
            break
        if pid == 0:
            for other in fds[:place] + fds[place + 1 :]:
                _close(other)
            channel.close()
            _be_worker(fd, tasks)
        pids.append(pid)
        _close(fd)
        fds[place] = -1
    for fd in fds:
        _close(fd)
    answer: dict[str, Any] = {"event": "forked", "pids": pids, **more}
    if problem:
        answer["problem"] = problem
    channel.send(answer)


def fork_parent(channel: Channel, forker: Forker, fds: list[int]) -> None:
    """Forks another parent, and tells its number. Does not return in it."""
    answer: dict[str, Any] = {"event": "forked", "pids": []}
    try:
        pid = forker.fork()
    except OSError as error:
        answer["problem"] = f"fork failed: {error}"
    else:
        if pid == 0:
            channel.close()
            code = 70
            try:
                new, log = fds
                os.dup2(log, 1)
                os.dup2(log, 2)
                os.close(log)
                worker.after_fork()
                code = main(new)
            except BaseException as error:
                failure.print_error(error)
            finally:
                os._exit(code)
        answer["pids"] = [pid]
    for fd in fds:
        _close(fd)
    channel.send(answer)


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)


def _be_worker(fd: int, tasks: int) -> None:
    """Everything from here on happens in the child, which must never come back."""
    code = 70
    try:
        worker.after_fork()
        code = worker.serve(Channel.from_fd(fd), tasks)
    except BaseException as error:
        failure.print_error(error)
    finally:
        os._exit(code)


def main(fd: int) -> int:
    fd = own_channel(fd)
    # The host ends a parent by closing its channel; a terminal's signals are not meant for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return serve(Channel.from_fd(fd))
