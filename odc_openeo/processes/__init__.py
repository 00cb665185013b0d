"""The openEO processes, one module per category of the specification. Importing it registers them all."""
from odc_openeo.processes import apply as apply
from odc_openeo.processes import climatology as climatology
from odc_openeo.processes import comparison as comparison
from odc_openeo.processes import cumulative as cumulative
from odc_openeo.processes import dimensions as dimensions
from odc_openeo.processes import filters as filters
from odc_openeo.processes import geometry_filters as geometry_filters
from odc_openeo.processes import indices as indices
from odc_openeo.processes import logic as logic
from odc_openeo.processes import masks as masks
from odc_openeo.processes import math as math
from odc_openeo.processes import merge as merge
from odc_openeo.processes import reducers as reducers
from odc_openeo.processes import resampling as resampling
from odc_openeo.processes import temporal as temporal
from odc_openeo.processes import zonal as zonal
