"""An openEO back-end on the Open Data Cube."""

__version__ = "0.1.0"
