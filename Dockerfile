# Two stages: the wheel is built in the first, so that no sources or build tools reach the second.
FROM python:3.12-slim AS build
WORKDIR /src
RUN pip install --no-cache-dir build
COPY pyproject.toml README.md LICENSE ./
COPY odc_openeo odc_openeo
COPY migrations migrations
COPY indexing indexing
RUN python -m build --wheel --outdir /wheels

FROM python:3.12-slim
ENV PYTHONUNBUFFERED=1 PYTHONUTF8=1 LANG=C.UTF-8 TZ=UTC \
    GDAL_DISABLE_READDIR_ON_OPEN=EMPTY_DIR \
    ODC_OPENEO_DATA_DIR=/data ODC_OPENEO_HOST=0.0.0.0 ODC_OPENEO_PORT=8080
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libexpat1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 1000 --home-dir /data --shell /usr/sbin/nologin odc-openeo \
    && install --directory --owner=odc-openeo /data
COPY requirements.lock /tmp/requirements.lock
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --constraint /tmp/requirements.lock /wheels/*.whl \
    && rm -r /wheels /tmp/requirements.lock
USER odc-openeo
WORKDIR /data
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=5 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/health', timeout=4)"]
CMD ["odc-openeo", "serve"]
