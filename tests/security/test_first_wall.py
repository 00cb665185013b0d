"""The first wall alone: what tests of foreign files show is also so where GDAL opens whatever it can."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.security import test_foreign_files
from tests.security.test_foreign_files import ALL_DRIVERS

LIST_DRIVERS = "from odc_openeo.untrusted.gdal_drivers import list_drivers as l; print(','.join(l()))"


def test_the_first_wall_alone() -> None:
    command = [sys.executable, "-c", LIST_DRIVERS]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert {"VRT", "GTI", "WMS"} <= set(names.split(","))
    # GDAL reads no netCDF.
    options = ["-n0", "-q", "-p", "no:cacheprovider", "-k", "not netcdf"]
    tests = [sys.executable, "-m", "pytest", *options, str(test_foreign_files.__file__)]
    environment = {**os.environ, ALL_DRIVERS: names}
    done = subprocess.run(tests, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
