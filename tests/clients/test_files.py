"""Files through the `openeo` client and the running stack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openeo


def test_upload_list_download_delete(connection: openeo.Connection, tmp_path: Path) -> None:
    content = np.random.default_rng(1).bytes(9 * 2**20)
    (tmp_path / "big.bin").write_bytes(content)
    sent = connection.upload_file(tmp_path / "big.bin", target="folder/big.bin")
    assert sent.metadata["size"] == len(content), "larger than a JSON body may be"
    listed = {str(f.path): f.metadata for f in connection.list_files()}
    assert listed["folder/big.bin"]["size"] == len(content)
    file = connection.get_file("folder/big.bin")
    assert file.download(tmp_path / "copy.bin").read_bytes() == content
    file.delete()
    assert "folder/big.bin" not in {str(f.path) for f in connection.list_files()}
