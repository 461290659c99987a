"""One module for each command: its options, its call, and what it prints.

The JSON of each command is described in ``docs/cli.md`` and is stable: fields may be added.
"""
