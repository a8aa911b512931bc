import pytest

from signet_site import Kit, Site


@pytest.fixture(scope="session")
def kit(tmp_path_factory):
    return Kit(tmp_path_factory.mktemp("kit"))


@pytest.fixture
def site(kit, tmp_path):
    """Not started, so that a test can change the configuration first."""
    with Site(kit, tmp_path / "site") as s:
        yield s
