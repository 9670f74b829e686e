"""Fixtures of the tests of the command line."""

import pytest

from cnnvis_fast.commands.main import main


@pytest.fixture
def run(capsys):
    """Runs a command in this process: exit code, stdout, stderr."""

    def call(*arguments):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return call
