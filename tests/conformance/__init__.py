"""Official openEO material, run against this package: ``vectors`` of values, ``descriptions``."""
