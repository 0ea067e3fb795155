"""`orchestrator`, and `python -m orchestrator`."""

from orchestrator.privileges import give_up_privileges


def run() -> None:
    """Be the command."""
    give_up_privileges()
    from orchestrator.cli import main  # takes longer than all before it

    main()


if __name__ == "__main__":
    run()
