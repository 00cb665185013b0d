# Two stages: the wheel is built in the first, so that no sources or build tools reach the second.
FROM python:3.12-slim AS build
WORKDIR /src
RUN pip install --no-cache-dir build
COPY pyproject.toml README.md LICENSE ./
COPY odc_openeo odc_openeo
COPY migrations migrations
COPY indexing indexing
RUN python -m build --wheel --outdir /wheels \
    && python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['udf'], sep='\n')" \
    > /wheels/udf.txt

FROM python:3.12-slim
ENV PYTHONUNBUFFERED=1 PYTHONUTF8=1 LANG=C.UTF-8 TZ=UTC \
    GDAL_DISABLE_READDIR_ON_OPEN=EMPTY_DIR \
    ODC_OPENEO_DATA_DIR=/data ODC_OPENEO_HOST=0.0.0.0 ODC_OPENEO_PORT=8080 \
    ODC_OPENEO_UDF_PYTHONS=/opt/udf/bin/python
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libexpat1 libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 1000 --home-dir /data --shell /usr/sbin/nologin odc-openeo \
    && install --directory --owner=odc-openeo /data \
    && install --directory --owner=odc-openeo --mode=711 /udf-cache
COPY requirements.lock /tmp/requirements.lock
# Code of users has an interpreter of its own: the libraries of the extra `udf` without this package.
COPY --from=build /wheels/udf.txt /tmp/udf.txt
RUN python -m venv /opt/udf \
    && /opt/udf/bin/pip install --no-cache-dir --constraint /tmp/requirements.lock --requirement /tmp/udf.txt
COPY --from=build /wheels/*.whl /wheels/
RUN pip install --no-cache-dir --constraint /tmp/requirements.lock "$(echo /wheels/*.whl)[s3,gcs,azure]" \
    && rm -r /wheels /tmp/requirements.lock /tmp/udf.txt
USER odc-openeo
WORKDIR /data
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=5 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/health', timeout=4)"]
CMD ["odc-openeo", "serve"]
