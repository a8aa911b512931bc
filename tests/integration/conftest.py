import os

import pytest

from signet_site import Kit, Site


def pytest_configure(config):
    config.addinivalue_line("markers", "long: with SIGNET_FULL=1 alone")


def pytest_collection_modifyitems(config, items):
    long = [item for item in items if item.get_closest_marker("long") and os.environ.get("SIGNET_FULL") != "1"]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


@pytest.fixture(scope="session")
def kit(tmp_path_factory):
    return Kit(tmp_path_factory.mktemp("kit"))


@pytest.fixture
def site(kit, tmp_path):
    """Not started, so that a test can change the configuration first."""
    with Site(kit, tmp_path / "site") as s:
        yield s
