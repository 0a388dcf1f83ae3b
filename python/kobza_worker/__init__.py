"""Warm worker: one process imports the user's modules once, and forks a child for each attempt.

Three kinds of process speak here, all over Unix sockets with the frames of ``wire``:

* the *host* (the executor's shim) starts the parent, asks it for workers and sends them tasks;
* the *parent* imports, then forks workers on request, and does nothing else;
* a *worker* runs one task (mode ``fork``, and ``spawn`` in a clean interpreter) or many (``reuse``).

A worker is made a child of the host, not of the parent: the host reaps it, times it and kills it,
and a parent may die without anybody noticing. The package needs only the standard library and knows
nothing of the systems whose tasks it runs: a task names a *runner*, a function that makes the call.
"""

PROTOCOL = 1
