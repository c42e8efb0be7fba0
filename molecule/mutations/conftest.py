"""What the mutations share with every other kind of test."""

from failures import pytest_collectreport, pytest_runtest_logreport  # noqa: F401 - hooks of pytest
