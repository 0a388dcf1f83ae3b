"""``python kobza_worker parent FD``, ``worker FD TASKS`` or ``export FILE``."""

import os
import sys

# Run as a folder, Python puts that folder itself in front of the search path, where our modules'
# names would hide the user's. The folder above it is what makes the package importable.
_here = os.path.dirname(os.path.abspath(__file__))
if sys.path and os.path.abspath(sys.path[0]) == _here:
    sys.path.pop(0)
_above = os.path.dirname(_here)
if _above not in sys.path:
    # In front of installed packages, so that the SDK beside this worker is the one that is used;
    # behind the standard library, which nothing may hide.
    _packages = [place for place, path in enumerate(sys.path) if path.endswith("-packages")]
    sys.path.insert(_packages[0] if _packages else len(sys.path), _above)

from kobza_worker import parent, worker  # noqa: E402


def main(arguments: list[str]) -> int:
    if len(arguments) >= 2 and arguments[0] == "parent":
        return parent.main(int(arguments[1]))
    if len(arguments) >= 3 and arguments[0] == "worker":
        code = worker.main(int(arguments[1]), int(arguments[2]))
        sys.stdout.flush()
        os._exit(code)
    if len(arguments) == 2 and arguments[0] == "export":
        from kobza import export

        return export.main(arguments[1:])
    print("usage: python kobza_worker parent FD | worker FD TASKS | export FILE", file=sys.stderr)
    return 64


sys.exit(main(sys.argv[1:]))
