# Python, libraries, the package and the image are stages: neither sources nor build tools nor caches reach the last
# one, and a change of the package changes only a small layer of it.
FROM debian:trixie-slim AS python
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 ca-certificates libexpat1 libgomp1 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /usr/share/doc/* /usr/share/man/*

FROM python AS libraries
RUN apt-get update && apt-get install --yes --no-install-recommends python3-venv binutils
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/odc-openeo && python3 -m venv /opt/udf
ENV PATH=/build/bin:$PATH
WORKDIR /src
COPY pyproject.toml requirements.lock ./
RUN python -c "import tomllib; \
project = tomllib.load(open('pyproject.toml', 'rb'))['project']; extras = project['optional-dependencies']; \
service = project['dependencies'] + extras['s3'] + extras['gcs'] + extras['azure']; \
open('service.txt', 'w').write('\n'.join(service)); open('udf.txt', 'w').write('\n'.join(extras['udf']))"
# The secret is a file of certificates, for networks where a proxy ends TLS. Of s2cloudless only the model is used,
# which needs no OpenCV.
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=certificates \
    if [ -s /run/secrets/certificates ]; then export PIP_CERT=/run/secrets/certificates; fi \
    && pip --python /opt/odc-openeo/bin/python install --no-compile --constraint requirements.lock --requirement service.txt \
    && pip --python /opt/odc-openeo/bin/python uninstall --yes opencv-python-headless
# Code of users has an interpreter of its own: the libraries of the extra `udf` without this package.
# `--build-arg UDF=no` leaves them out, where no code of users runs.
ARG UDF=yes
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=certificates \
    if [ -s /run/secrets/certificates ]; then export PIP_CERT=/run/secrets/certificates; fi \
    && if [ "$UDF" = yes ]; then \
        /opt/udf/bin/pip install --no-compile --constraint requirements.lock --requirement udf.txt; fi
# What the service does not use of libraries: tests, symbols for debuggers, headers, the client of S3 and the protocol
# Flight in Arrow, ONNX Runtime for other languages, all of AWS but what opens buckets and databases. What both
# interpreters have is kept once: compiled files do not name their folder, so that they are equal, too. Files for
# other versions of Python cannot be compiled.
COPY deploy/compose/trim-libraries.sh ./
RUN sh trim-libraries.sh /opt/odc-openeo /opt/udf

FROM libraries AS package
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=certificates \
    if [ -s /run/secrets/certificates ]; then export PIP_CERT=/run/secrets/certificates; fi \
    && pip install "hatchling>=1.25"
COPY README.md LICENSE ./
COPY odc_openeo odc_openeo
COPY migrations migrations
COPY indexing indexing
RUN pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /wheel . \
    && pip --python /opt/odc-openeo/bin/python install --no-deps --no-index --no-compile --prefix /package /wheel/*.whl \
    && python -m compileall -q -s /package -p /opt/odc-openeo --invalidation-mode unchecked-hash /package

FROM python
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUTF8=1 LANG=C.UTF-8 TZ=UTC PATH=/opt/odc-openeo/bin:$PATH \
    GDAL_DISABLE_READDIR_ON_OPEN=EMPTY_DIR \
    ODC_OPENEO_DATA_DIR=/data ODC_OPENEO_HOST=0.0.0.0 ODC_OPENEO_PORT=8080 \
    ODC_OPENEO_UDF_PYTHONS=/opt/udf/bin/python
# The folders are the places of volumes, which get their owners from here.
RUN useradd --system --uid 1000 --home-dir /data --shell /usr/sbin/nologin odc-openeo \
    && install --directory --owner=odc-openeo /data /imagery /run/secrets \
    && install --directory --owner=odc-openeo --mode=711 /udf-cache
COPY --from=libraries /opt /opt
COPY --from=package /package /opt/odc-openeo
COPY --chmod=755 deploy/compose/check-health.sh /usr/local/bin/check-health
USER odc-openeo
WORKDIR /data
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s --retries=12 CMD ["check-health", "8080", "/health"]
CMD ["odc-openeo", "serve"]
