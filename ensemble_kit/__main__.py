"""What `ensk` and `python -m ensemble_kit` start: signals are heard before anything else is imported."""

from ensemble_kit.cli import signals, starting


def main() -> None:
    """Run `ensk` on the arguments of this process, and exit."""
    signals.listen_early()
    starting.collect_later()
    from ensemble_kit.cli import app

    app.main()


if __name__ == "__main__":
    main()
