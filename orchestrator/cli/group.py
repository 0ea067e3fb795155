"""A group of verbs whose help says all of what each does."""

from __future__ import annotations

import click


class Group(click.Group):
    """click's own help cuts a verb's line where the terminal ends."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, _first_sentence(verb)) for name, verb in found if verb is not None and not verb.hidden]
        with formatter.section("Verbs"):
            formatter.write_dl(rows)


def _first_sentence(verb: click.Command) -> str:
    first = (verb.help or "").split("\n\n", 1)[0]
    return " ".join(first.split())
