#!/bin/sh
# Makes virtual environments small, and compiles what is left: see the Dockerfile, which runs this.
set -e
for environment in "$@"; do
  packages=$(echo "$environment"/lib/python*/site-packages)
  for name in dask distributed h5py networkx numpy pandas pyarrow scipy shapely skimage sklearn xarray; do
    [ -d "$packages/$name" ] && find "$packages/$name" -type d -name tests -prune -exec rm -r {} +
  done
  rm -rf "$packages"/pyarrow/include "$packages"/pyarrow/_flight* "$packages"/pyarrow/libarrow_flight* \
    "$packages"/pyarrow/_s3fs* "$packages"/pyarrow/libarrow_s3* "$packages"/onnxruntime/capi/libonnxruntime.so.*
  if [ -d "$packages/botocore/data" ]; then
    find "$packages/botocore/data" -mindepth 1 -maxdepth 1 -type d \
      ! -name s3 ! -name sts ! -name sso ! -name sso-oidc ! -name rds -exec rm -r {} +
  fi
  find "$packages" -type f \( -name '*.so' -o -name '*.so.*' \) -exec strip --strip-unneeded {} + 2>/dev/null || true
  # Sources for other versions of Python cannot be compiled, and are not used.
  python3 -W ignore -m compileall -qq -j 0 -s "$packages" --invalidation-mode unchecked-hash "$packages" || true
done
hardlink --ignore-time "$@"
