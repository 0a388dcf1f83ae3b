"""Runs one Python task: reads the call from standard input, writes what it returns."""
import datetime
import importlib
import importlib.util
import json
import os
import sys
import traceback


def load(call):
    """The function that is called, or None for a script or inline code, which have run then."""
    for folder in reversed(call["path"]):
        sys.path.insert(0, folder)
    if call.get("code") is not None:
        scope = {"__name__": "__main__", **call["with"]}
        exec(compile(call["code"], "<task>", "exec"), scope)
        return None, scope.get("result")
    if call.get("file") is not None:
        path = os.path.abspath(call["file"])
        sys.path.insert(0, os.path.dirname(path))
        if call.get("function") is None:
            import runpy

            sys.argv = [path]
            runpy.run_path(path, run_name="__main__")
            return None, None
        name = os.path.splitext(os.path.basename(path))[0]
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        names = call["function"]
    else:
        target = call["function"]
        module_name, names = target.split(":", 1) if ":" in target else target.rsplit(".", 1)
        module = importlib.import_module(module_name)
    function = module
    for name in names.split("."):
        function = getattr(function, name)
    # A decorated task is called as the plain function that it wraps.
    return getattr(function, "__wrapped__", function), None


def convert(function, values):
    """Texts become dates where the function's annotations say so."""
    readers = {
        "date": lambda text: datetime.date.fromisoformat(text[:10]),
        "datetime": lambda text: datetime.datetime.fromisoformat(text.replace("Z", "+00:00")),
    }
    hints = getattr(function, "__annotations__", {})
    result = {}
    for name, value in values.items():
        hint = hints.get(name)
        word = getattr(hint, "__name__", hint)
        word = word.rsplit(".", 1)[-1] if isinstance(word, str) else None
        reader = readers.get(word)
        result[name] = reader(value) if reader and isinstance(value, str) else value
    return result


def plain(value):
    """What JSON cannot hold, as something that it can."""
    if isinstance(value, (datetime.date, datetime.datetime, datetime.time)):
        return value.isoformat()
    if isinstance(value, (set, frozenset, tuple)):
        return sorted(value) if isinstance(value, (set, frozenset)) else list(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "item") and callable(value.item):
        return value.item()
    import dataclasses

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"a task cannot return a {type(value).__name__}: it has no JSON form")


def report(error):
    """The traceback with the author's frames only, innermost last, then the error."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename != "<string>" and not f.filename.startswith("<frozen")]
    library = os.sep + "lib" + os.sep + "python"
    user = [f for f in own if library not in f.filename and "site-packages" not in f.filename]
    sys.stderr.write("Traceback (most recent call last):\n")
    sys.stderr.writelines(traceback.format_list(user or own))
    sys.stderr.writelines(traceback.format_exception_only(type(error), error))
    if error.__cause__ is not None:
        sys.stderr.write(f"caused by {type(error.__cause__).__name__}: {error.__cause__}\n")
    sys.stderr.flush()


def main():
    call = json.loads(sys.stdin.buffer.read().decode("utf-8"))
    sys.stdin = open(os.devnull)
    try:
        function, result = load(call)
        if function is not None:
            result = function(**convert(function, call["with"]))
            if hasattr(result, "__await__"):
                import asyncio

                async def wait(awaitable):
                    return await awaitable

                result = asyncio.run(wait(result))
        output = os.environ.get("KOBZA_OUTPUT")
        if output and result is not None:
            text = json.dumps({"result": result}, default=plain, allow_nan=False)
            with open(output, "w", encoding="utf-8") as file:
                file.write(text)
        if call.get("check") and result is False:
            sys.stderr.write("the check does not hold\n")
            return 1
    except SystemExit:
        raise
    except BaseException as error:
        report(error)
        return 1
    finally:
        sys.stdout.flush()
    return 0


sys.exit(main())
