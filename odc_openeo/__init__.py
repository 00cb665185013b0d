"""An openEO back-end on the Open Data Cube."""

__version__ = "0.2.0"
