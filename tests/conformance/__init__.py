"""Official openEO material, run against this package: ``vectors`` for values, ``descriptions`` for metadata."""
