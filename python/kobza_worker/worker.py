"""The worker: takes tasks from its channel and runs them, one (then it exits) or many.

Frames from the host:

``{"op": "run", "task": {...}}`` with two descriptors, the task's standard output and error; further
ones become the field ``channels``, for an adapter whose tasks speak a protocol of their own.
A task's fields (all but ``function`` may be absent):

============== =====================================================================================
``function``   ``module:qualname``, or ``qualname`` in ``file``
``file``       source file to load it from
``path``       folders for the front of the module search path
``runner``     ``module:function`` that makes the call; default: ``kobza_worker.runner:run``
``args``       arguments: an object (by name) or a list
``env``        environment variables to add; a null value removes one
``clear_env``  start from an empty environment instead of the parent's
``folder``     working folder
``umask``      as a number
``user``       user to become (only root can)
``limits``     ``memory_bytes``, ``cpu_seconds``, ``file_bytes`` (per process)
``output``     file to write the outputs to, as one JSON object; else they go with the frame ``done``
``output_bytes`` longest outputs accepted, in bytes of JSON
``title``      shown by ``ps``
``context``    for the runner: what it may tell the task about its run
============== =====================================================================================

While it runs the task may ask (see ``asking``): ``{"event": "ask", "number": 1, "body": {...}}``, to
which the host answers ``{"op": "answer", "number": 1, "value": ...}``, or with ``refused`` and a reason.

The worker answers ``{"event": "done", "exit": 0, ...}``; one that runs a single task then exits with
that code. Exit 0 without outputs therefore means that the user's code ended the process itself.
Outputs that begin with ``$`` are for the control plane: ``$error`` says why it failed.
"""

from __future__ import annotations

import _signal
import atexit
import gc
import json
import os
import resource
import sys
import threading
from typing import Any

from . import asking, failure, loading, runner
from .wire import BadFrame, Channel, Closed, own_channel

#: Longest outputs accepted when the task does not say, in bytes of JSON.
OUTPUT_BYTES_DEFAULT = 4 << 20
#: The interpreter adapts a function's code after eight calls.
REHEARSALS = 12
_LIMITS = {
    "memory_bytes": resource.RLIMIT_DATA,
    "cpu_seconds": resource.RLIMIT_CPU,
    "file_bytes": resource.RLIMIT_FSIZE,
}
_runners: dict[str, Any] = {}


class TooLarge(Exception):
    """The outputs exceed the limit."""

    kobza_cause = "limit"


def prepare_streams() -> None:
    """Text that cannot be encoded must not fail a task, and its log must appear as it is written."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)


def after_fork() -> None:
    """Makes a fresh child a process of its own."""
    try:
        os.setsid()
    except OSError:
        pass  # It leads a session already.
    # The module below `signal`: the wrapper makes enumerations, which costs as much as the fork.
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    for number in (_signal.SIGTERM, _signal.SIGHUP, _signal.SIGALRM, _signal.SIGCHLD):
        _signal.signal(number, _signal.SIG_DFL)
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    # Children of one parent must not draw the same numbers. The standard library sees to its own.
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed(int.from_bytes(os.urandom(4), "big"))
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "seed"):
        torch.seed()
    gc.enable()


def serve(channel: Channel, tasks: int) -> int:
    """Runs at most ``tasks`` tasks. Returns the exit code for the process."""
    left = tasks
    code = 0
    while left > 0:
        try:
            message, fds = channel.receive()
        except Closed:
            return 0  # Nobody wants this worker any more.
        except BadFrame as error:
            os.write(2, f"worker: {error}\n".encode())
            return 70
        operation = message.get("op")
        if operation == "start":
            _start(message)
            continue
        if operation == "answer":
            continue  # The task that asked has ended.
        if operation != "run" or len(fds) < 2 or not isinstance(message.get("task"), dict):
            os.write(2, f"worker: unexpected frame {operation!r}\n".encode())
            return 70
        left -= 1
        code = _run(channel, message["task"], fds, last=left == 0, single=tasks == 1)
        if code < 0:
            return 0
    return code


def _start(message: dict[str, Any]) -> None:
    """In a clean interpreter: search path and runner, but none of the user's modules yet."""
    loading.add_paths(message.get("path") or [])
    failure.MACHINERY.extend(message.get("machinery") or [])


def _run(channel: Channel, task: dict[str, Any], fds: list[int], last: bool, single: bool) -> int:
    """Runs one task. Returns its exit code, or -1 when the worker must not take another one."""
    out, err, *channels = fds
    if channels:
        task["channels"] = channels
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    pid = os.getpid()
    threads = threading.active_count()
    undo = [] if single else _remember(task)
    outputs: dict[str, Any] | None = None
    streams = (sys.stdout, sys.stderr)
    asking.attach(channel)
    try:
        _enter(task, single)
        outputs = _runner(task)(task)
        code = 0
        data = _encode(task, outputs)
    except SystemExit as error:
        code, data = _exited(error)
    except BaseException as error:
        code = 1
        cause = getattr(error, "kobza_cause", None)
        if not isinstance(cause, str):
            cause = "limit" if isinstance(error, MemoryError) else "code"
        failure.print_error(error)
        data = json.dumps({"$error": failure.describe(error, cause)}).encode()
        # The frames hold the task's data; nothing else does any more.
        error.__traceback__ = None
    if os.getpid() != pid:
        # The user's code forked and both sides came back: this copy owns nothing.
        _flush(streams)
        os._exit(0)
    if single:
        _end_threads()
    asking.attach(None)
    _flush(streams)
    _settle(streams)
    done: dict[str, Any] = {"event": "done", "exit": code}
    try:
        if task.get("output"):
            _write(task["output"], data)
        else:
            done["outputs"] = json.loads(data)
    except OSError as error:
        code = 74
        done = {
            "event": "done",
            "exit": code,
            "outputs": {
                "$error": {
                    "type": "OSError",
                    "cause": "infrastructure",
                    "where": None,
                    "message": f"its outputs could not be written: {error}",
                }
            },
        }
    spoiled = not single and threading.active_count() > threads
    if spoiled or last:
        done["last"] = True
    if not single:
        done["rss_peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        for step in undo:
            step()
        _silence()
    try:
        channel.send(done)
    except Closed:
        pass  # The exit code and the output file still tell.
    return -1 if spoiled else code


def _write(path: str, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(file, left) :]
    finally:
        os.close(file)


def rehearse(task: dict[str, Any]) -> None:
    """Runs a task's path without its surroundings, for the parent: what the interpreter learns by
    it (caches of types and of attributes, faster instructions) every worker then has from its
    first instant, and need not write into pages of its own."""
    for _ in range(REHEARSALS):
        told = json.loads(json.dumps({"op": "run", "task": task}, separators=(",", ":")))["task"]
        _encode(told, _runner(told)(told))


def _silence() -> None:
    """Lets go of the task's log, so that its reader sees the end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)


def _runner(task: dict[str, Any]) -> Any:
    name = task.get("runner")
    if not name:
        return runner.run
    found = _runners.get(name)
    if found is None:
        found = _runners[name] = loading.resolve(name)
    return found


def _remember(task: dict[str, Any]) -> list[Any]:
    """What must be put back before a worker takes its next task."""
    steps: list[Any] = []
    if task.get("clear_env"):
        before = dict(os.environ)

        def restore_all() -> None:
            os.environ.clear()
            os.environ.update(before)

        steps.append(restore_all)
    elif task.get("env"):
        old = [(name, os.environ.get(name)) for name in task["env"]]

        def restore() -> None:
            for name, value in old:
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

        steps.append(restore)
    if task.get("folder"):
        here = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

        def back() -> None:
            os.fchdir(here)
            os.close(here)

        steps.append(back)
    if task.get("umask") is not None:
        umask = os.umask(0)
        os.umask(umask)
        steps.append(lambda: os.umask(umask))
    return steps


def _enter(task: dict[str, Any], single: bool) -> None:
    if task.get("clear_env"):
        os.environ.clear()
    for name, value in (task.get("env") or {}).items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = str(value)
    if task.get("umask") is not None:
        os.umask(task["umask"])
    for name, value in (task.get("limits") or {}).items():
        if value is not None and name in _LIMITS:
            kind = _LIMITS[name]
            hard = resource.getrlimit(kind)[1]
            if hard != resource.RLIM_INFINITY:
                value = min(value, hard)
            resource.setrlimit(kind, (value, value if single else hard))
    if task.get("user") and single:
        import pwd

        try:
            entry = pwd.getpwnam(task["user"])
        except KeyError:
            raise loading.LoadError(f"there is no user {task['user']!r}") from None
        os.initgroups(entry.pw_name, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    if task.get("folder"):
        os.chdir(task["folder"])
    if task.get("path"):
        loading.add_paths(task["path"])
    if single and task.get("title"):
        _rename(str(task["title"]))


def _rename(title: str) -> None:
    try:
        with open("/proc/self/comm", "wb", buffering=0) as file:
            file.write(title.encode()[:15])
    except OSError:
        pass  # Only for the eye.


def _encode(task: dict[str, Any], outputs: Any) -> bytes:
    if not isinstance(outputs, dict):
        raise runner.NotStorable(f"the runner returned a {type(outputs).__name__}, not outputs")
    try:
        data = json.dumps(outputs, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError, UnicodeEncodeError) as error:
        raise runner.NotStorable(f"its outputs cannot be kept as JSON: {error}") from None
    limit = task.get("output_bytes") or OUTPUT_BYTES_DEFAULT
    if len(data) > limit:
        raise TooLarge(
            f"its outputs are {len(data)} bytes of JSON; the limit is {limit}."
            " Return large data as a data frame, an array or an artifact"
        )
    return data


def _exited(error: SystemExit) -> tuple[int, bytes]:
    """``sys.exit`` means what it means to the shell: 0 or nothing is success, else that code."""
    code = error.code
    if code is None or code == 0:
        return 0, b'{"result":null}'
    if isinstance(code, int):
        number = code & 0xFF or 1
        words = f"the function called sys.exit({code})"
    else:
        number = 1
        try:
            words = str(code)
        except BaseException:
            words = "the function called sys.exit with something unprintable"
        os.write(2, (words + "\n").encode("utf-8", "backslashreplace"))
    report = {"type": "SystemExit", "message": words, "cause": "code", "where": None}
    return number, json.dumps({"$error": report}).encode()


def _end_threads() -> None:
    """What the interpreter does at its end: wait for threads, then call the exit functions."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    except BaseException as error:
        failure.print_error(error)


def _flush(streams: tuple[Any, ...]) -> None:
    for stream in (sys.stdout, sys.stderr, *streams):
        try:
            stream.flush()
        except BaseException:
            pass  # Closed, replaced, or its reader gone: the task's result does not depend on it.


def _settle(streams: tuple[Any, ...]) -> None:
    """Descriptors 1 and 2 exist again, lest the output file become one of them."""
    sys.stdout, sys.stderr = streams
    for number in (1, 2):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            if null != number:
                os.dup2(null, number)
                os.close(null)


def main(fd: int, tasks: int) -> int:
    """A worker in a clean interpreter."""
    prepare_streams()
    after_fork()
    return serve(Channel.from_fd(own_channel(fd)), tasks)
