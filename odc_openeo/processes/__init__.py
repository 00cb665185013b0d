"""The openEO processes, one module per category of the specification. Importing it registers them all."""
from odc_openeo.processes import math as math
from odc_openeo.processes import geometry_filters as geometry_filters
from odc_openeo.processes import zonal as zonal
