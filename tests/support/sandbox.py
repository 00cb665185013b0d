"""Whether the code of users can run on this machine."""

from __future__ import annotations

import pytest

from odc_openeo.udf.calls import UdfSettings
from odc_openeo.udf.layers import find_sandbox

SETTINGS = UdfSettings()
SANDBOX = find_sandbox(SETTINGS, SETTINGS.pythons[0])

needs_sandbox = pytest.mark.skipif(not SANDBOX.is_usable, reason=f"no user code runs here: {SANDBOX.reason}")
