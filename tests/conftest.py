"""How the tests are run: their environment, the fixtures of all, and which stay in one process."""

from __future__ import annotations

import os

import pytest

# Before transformers is imported: no test asks the network, and two small cores are shared.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"

# Many tests and nothing dear that they share: these files are spread over all processes.
SPREAD = ("test_family_contract.py", "test_vocabulary.py", "test_refit.py")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a file share its fixtures, whole runs among them, so they stay in one process; those in a
    browser stay in one process all together, so that no two browsers compete."""
    for item in items:
        if "browser" in item.path.parts:
            item.add_marker(pytest.mark.xdist_group("browser"))
        elif item.path.name not in SPREAD:
            item.add_marker(pytest.mark.xdist_group(item.path.name))


def pytest_configure(config: pytest.Config) -> None:
    """The fixtures, whose libraries take seconds to import, not where others run the tests (xdist)."""
    if hasattr(config, "workerinput") or not config.getoption("tx", None):
        config.pluginmanager.import_plugin("tests.fixtures")
