"""Where an Executor and a Task meet that could not inherit a descriptor: a Unix socket in a private directory.

For plugins. `executor_side.Rendezvous` makes the directory, listens, and lets the one in who holds the one-shot key;
`task_side.reach` goes there and proves it. Both end with a connected socket, and what goes over it is the plugin's:
messages, or descriptors of memory. A plugin that binds names of its own takes `directory.PrivateDirectory` alone; and
`hold.Hold` in the Task, if the Task has to find there what the Executor wrote before it closed.

`task_side`, `handshake` and `hold` are a part of the Task side, but imported only by a Task that needs them.
"""
