"""Functions that write calls of processes as code, by family. Importing this package registers them."""

from odc_openeo.explain.emitters import array_elements as array_elements
from odc_openeo.explain.emitters import combination as combination
from odc_openeo.explain.emitters import comparison as comparison
from odc_openeo.explain.emitters import cubes as cubes
from odc_openeo.explain.emitters import dimensions as dimensions
from odc_openeo.explain.emitters import export as export
from odc_openeo.explain.emitters import external as external
from odc_openeo.explain.emitters import grids as grids
from odc_openeo.explain.emitters import load as load
from odc_openeo.explain.emitters import logic as logic
from odc_openeo.explain.emitters import math as math
from odc_openeo.explain.emitters import models as models
from odc_openeo.explain.emitters import periods as periods
from odc_openeo.explain.emitters import reducers as reducers
from odc_openeo.explain.emitters import selection as selection
from odc_openeo.explain.emitters import texts as texts
from odc_openeo.explain.emitters import user_code as user_code
from odc_openeo.explain.emitters import vectors as vectors
from odc_openeo.explain.emitters import zones as zones
