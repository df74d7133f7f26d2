"""Signals that end a job."""

import signal

import pytest

from metagen.training import signals


def raised_while_stopping():
    try:
        try:
            raise signals.Stopped(signal.SIGINT)
        finally:
            raise RuntimeError("mutating directly with `.data` inside functorch transform is not allowed")
    except RuntimeError as error:
        return error


def test_what_fails_on_the_way_out_is_the_signals_doing():
    stop = signals.behind(raised_while_stopping())
    assert stop is not None
    assert stop.code == 130
    assert signals.behind(stop) is stop


@pytest.mark.parametrize("error", [None, RuntimeError("another")])
def test_another_error_is_no_signals_doing(error):
    assert signals.behind(error) is None
