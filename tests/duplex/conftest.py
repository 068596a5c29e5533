"""What the tests of Stream share."""

from __future__ import annotations

import pytest

from headrace._transport import backend


@pytest.fixture(params=["native", "portable"])
def way(request):
    """Each way to the socket that there is."""
    if request.param == "native" and backend.native is None:
        pytest.skip("the pure-Python build has the portable way only")
    return request.param
