"""One response for the files of a result: the file itself, or an archive that is made while it is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zipstream import ZipStream

from odc_openeo.formats.file_names import DEFAULT_STEM
from odc_openeo.formats.model import Asset
from odc_openeo.formats.write import Output, name_outputs

ARCHIVE_TYPE: Final = "application/zip"


@dataclass(frozen=True)
class Download:
    """The content of one response.

    ``files``: where the file or the members of the archive are, by their names in the response.
    """

    name: str
    media_type: str
    files: Mapping[str, Path]

    @property
    def is_archive(self) -> bool:
        """Whether the files come as one archive."""
        return self.media_type == ARCHIVE_TYPE

    def open_archive(self) -> ZipStream:
        """Return the bytes of the archive as an iterable that reads the files; its length is their number.

        Members are not compressed: most formats are so already, and the size is known at the start.
        """
        archive = ZipStream(sized=True)
        for name, path in sorted(self.files.items()):
            archive.add_path(path, name)
        return archive


def make_download(assets: Sequence[Asset], outputs: Sequence[Output]) -> Download:
    """Make the download of all files of a result: a single file is sent as it is, others as an archive."""
    if len(assets) == 1 and assets[0].path.is_file():
        (asset,) = assets
        return Download(asset.path.name, asset.media_type, {asset.path.name: asset.path})
    stems = name_outputs(outputs)
    name = stems[0] if len(stems) == 1 else DEFAULT_STEM
    members = {
        file.relative_to(asset.path.parent).as_posix(): file
        for asset in assets
        for file in ([asset.path] if asset.path.is_file() else asset.path.rglob("*"))
        if file.is_file()
    }
    return Download(f"{name}.zip", ARCHIVE_TYPE, members)


def explain_archive(outputs: Sequence[Output]) -> str:
    """Say why the files of some outputs come as an archive."""
    if len(outputs) > 1:
        return f"The result is a ZIP archive: the process graph saves {len(outputs)} results."
    return f"The result is a ZIP archive: {''.join(o.explain_files() for o in outputs)}"
