"""``docket completion``: completion scripts for shells."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from docket.commands.terminal import print_text


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    \b
    bash: docket completion bash > /etc/bash_completion.d/docket
    zsh:  docket completion zsh > "${fpath[1]}/_docket"
    fish: docket completion fish > ~/.config/fish/completions/docket.fish
    """
    completer = get_completion_class(shell)
    assert completer
    # bash's version check runs bash; the script itself needs only these arguments
    script = completer(context.find_root().command, {}, "docket", "_DOCKET_COMPLETE").source()
    print_text(f"{script}\n")
