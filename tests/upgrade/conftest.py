"""Earlier releases, unpacked."""

from __future__ import annotations

import pytest

from upgrade.releases import NAMES, Release


@pytest.fixture(scope="module", params=NAMES)
def release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Each of them."""
    return Release.unpack(request.param, tmp_path_factory.mktemp("release"))
