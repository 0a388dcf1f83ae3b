"""Turns an exception into words: a short message, a place, and a traceback led by the user's frames.

Everything here must work for exceptions that misbehave: whose ``__str__`` raises, whose type has no
name, whose traceback names files that are gone.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from typing import Any

#: Longest message kept, in characters; the log has the rest.
MESSAGE_CHARS_MAX = 2000
#: Most frames shown of one exception; the middle of a deep recursion says nothing.
FRAMES_MAX = 60

_HERE = os.path.dirname(os.path.abspath(__file__))
#: Folders whose frames are the machinery's own and are not shown at all.
MACHINERY = [_HERE]
_LIBRARIES = tuple(
    os.path.join(os.path.realpath(path), "")
    for path in {
        sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")
    }
    if path
)


def is_machinery(filename: str) -> bool:
    return filename.startswith("<frozen ") or any(
        filename.startswith(folder + os.sep) for folder in MACHINERY
    )


def is_library(filename: str) -> bool:
    return filename.startswith("<") or os.path.realpath(filename).startswith(_LIBRARIES)


def type_name(error: BaseException) -> str:
    kind = type(error)
    try:
        name = str(kind.__qualname__)
        module = str(kind.__module__)
    except BaseException:
        return "exception"
    return name if module in ("builtins", "__main__") else f"{module}.{name}"


def text_of(error: BaseException) -> str:
    """The exception's own words, or what stands for them when it cannot even say them."""
    try:
        text = str(error)
        if type(text) is not str:
            text = str.__str__(text)
    except BaseException as second:
        return f"(its __str__ raised {type_name(second)})"
    return text if len(text) <= MESSAGE_CHARS_MAX else text[:MESSAGE_CHARS_MAX] + " ..."


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    try:
        frames = list(traceback.extract_tb(error.__traceback__))
    except BaseException:
        return []
    return [frame for frame in frames if not is_machinery(frame.filename)]


def _place(error: BaseException) -> dict[str, Any] | None:
    if isinstance(error, SyntaxError) and error.filename:
        return {
            "file": error.filename,
            "line": error.lineno,
            "function": None,
            "code": (error.text or "").strip() or None,
        }
    frames = _frames(error)
    users = [frame for frame in frames if not is_library(frame.filename)]
    if not users:
        return None
    last = users[-1]
    return {
        "file": last.filename,
        "line": last.lineno,
        "function": last.name,
        "code": last.line or None,
    }


def summary(error: BaseException) -> str:
    """One line: type, words, and the place in the user's code."""
    words = text_of(error).strip()
    line = type_name(error) + (f": {words}" if words else "")
    place = _place(error)
    if place and place["file"]:
        line += f" ({os.path.basename(place['file'])}:{place['line']}"
        line += f" in {place['function']})" if place["function"] else ")"
    return line


def _render_one(error: BaseException) -> list[str]:
    lines: list[str] = []
    frames = _frames(error)
    users = [frame for frame in frames if not is_library(frame.filename)]
    libraries = [frame for frame in frames if is_library(frame.filename)]
    if users:
        lines.append("Traceback (your code, most recent call last):")
        lines += _render_frames(users, code=True)
    if libraries:
        lines.append(
            "  inside libraries:" if users else "Traceback (library code, most recent call last):"
        )
        lines += _render_frames(libraries, code=not users)
    if isinstance(error, SyntaxError):
        try:
            lines += [
                line.rstrip("\n") for line in traceback.format_exception_only(type(error), error)
            ]
            return lines
        except BaseException:
            pass
    words = text_of(error)
    lines.append(type_name(error) + (f": {words}" if words else ""))
    notes = getattr(error, "__notes__", None)
    if isinstance(notes, (list, tuple)):
        lines += [f"  {note}" for note in notes if isinstance(note, str)]
    return lines


def _render_frames(frames: list[traceback.FrameSummary], code: bool) -> list[str]:
    if len(frames) > FRAMES_MAX:
        half = FRAMES_MAX // 2
        return [
            *_render_frames(frames[:half], code),
            f"  ... {len(frames) - 2 * half} more frames ...",
            *_render_frames(frames[-half:], code),
        ]
    lines = []
    for frame in frames:
        lines.append(f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}')
        if code and frame.line:
            lines.append(f"    {frame.line}")
    return lines


def render(error: BaseException) -> str:
    """The whole traceback with its chain of causes, the user's frames first."""
    chain: list[tuple[BaseException, str | None]] = []
    seen: set[int] = set()
    current: BaseException | None = error
    joint: str | None = None
    while current is not None and id(current) not in seen and len(chain) < 20:
        seen.add(id(current))
        chain.append((current, joint))
        if current.__cause__ is not None:
            current, joint = current.__cause__, "which directly caused:"
        elif current.__context__ is not None and not current.__suppress_context__:
            current, joint = current.__context__, "while handling it, another one came up:"
        else:
            current = None
    lines: list[str] = []
    for place in range(len(chain) - 1, -1, -1):
        link, _ = chain[place]
        lines += _render_one(link)
        group = getattr(link, "exceptions", None)
        if isinstance(group, tuple):
            for number, member in enumerate(group[:10], 1):
                if isinstance(member, BaseException) and id(member) not in seen:
                    lines.append(f"  exception {number} of {len(group)} in the group:")
                    lines += ["    " + line for line in _render_one(member)]
        if place > 0:
            lines += ["", chain[place][1] or "", ""]
    return "\n".join(lines) + "\n"


def describe(error: BaseException, cause: str = "code") -> dict[str, Any]:
    """What goes into the output ``$error``: for the task's message and the user interface."""
    return {
        "type": type_name(error),
        "message": summary(error),
        "cause": cause,
        "where": _place(error),
    }


def print_error(error: BaseException) -> None:
    """Writes the traceback to the standard error, whatever state that is in."""
    try:
        data = render(error).encode("utf-8", "backslashreplace")
    except BaseException:
        data = b"an exception whose traceback could not be rendered\n"
    try:
        sys.stderr.flush()
    except BaseException:
        pass
    try:
        os.write(2, data)
    except OSError:
        pass
