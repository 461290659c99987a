"""Configuration files that make container engines pull through a host's agent.

Each engine has a module that plans changes from the files that are there; `files` writes and undoes
them. Nothing here talks to an engine.
"""
