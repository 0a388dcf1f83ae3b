"""Warm worker: one process imports the user's modules once, and forks a child for each attempt.

Three kinds of process speak here, all over Unix sockets with the frames of ``wire``:

* the *host* (the executor's shim) starts the parent, asks it for workers and sends them tasks;
* the *parent* imports, then forks workers on request, and does nothing else;
* a *worker* runs one task (mode ``fork``, and ``spawn`` in a clean interpreter) or many (``reuse``).

A worker is made a child of the host, not of the parent: the host reaps it, times it and kills it,
and a parent may die without anybody noticing. The package needs only the standard library and knows
nothing of the systems whose tasks it runs.

An *adapter* is the module that does, ``<package>.runner``, named by the task's field ``adapter`` (the
package) at the host. It has:

* ``run(task) -> outputs``: makes the call. ``task`` is the description that the host sent (see
  ``worker``), with whatever the system put into ``context``; the outputs are a dictionary of JSON
  values, those that begin with ``$`` for the control plane. An exception fails the task.
* ``load(entry) -> module``, if it wants: called once in the parent in the place of ``loading.load``,
  with the task's field ``load``.
* ``prepare(modules)``, if it wants: called once in the parent, after the imports, with the modules
  that were loaded. It does ahead what every worker would do anew.
* ``rehearsal() -> task``, if it wants: a task without effects, run a few times in the parent, so that
  the interpreter has learnt the way before it forks.

What a running task wants to know from the control plane it asks by ``asking.ask(body)``: the question
goes through the host to the dialect of the task's run (``Dialect::ask`` on the other side), and
survives the death of a server.
"""

PROTOCOL = 1
