"""Makes ``python -m odc_openeo.cli`` the command ``odc-openeo``."""

from odc_openeo.cli import main

main()
