"""An openEO back-end on the Open Data Cube."""

__version__ = "0.3.0.dev0"
