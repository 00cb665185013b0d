"""openEO error codes: one class per code, with its HTTP status and message template.

The class name is the code. Codes of the API come from its error list, codes of processes from the
``exceptions`` of the process descriptions; a test compares both with the official lists.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self


class OpenEOError(Exception):
    """An error reported to the client: ``code``, ``status``, ``message``, and the node that caused it."""

    status: int = 400
    template: ClassVar[str] = "The request cannot be carried out."

    def __init__(self, message: str | None = None, *, node: str | None = None, **fields: Any) -> None:
        self.message = message if message is not None else self.template.format(**fields)
        self.node = node
        self.id: str | None = None
        super().__init__(self.message)

    @property
    def code(self) -> str:
        """The openEO error code."""
        return type(self).__name__

    def detach(self) -> Self:
        """Drop the traceback and causes, which some libraries pickle with the error; return the error."""
        self.__cause__ = self.__context__ = None
        return self.with_traceback(None)

    def to_dict(self) -> dict[str, str]:
        """The JSON body of an openEO error response."""
        message = f"Node '{self.node}': {self.message}" if self.node else self.message
        body = {"code": self.code, "message": message}
        return {"id": self.id, **body} if self.id else body


def walk_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Iterate over an error and what led to it, from the last to the first."""
    visited: set[int] = set()
    while error is not None and id(error) not in visited:
        visited.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


# --- General -------------------------------------------------------------------------------------


class Internal(OpenEOError):
    status = 500
    template = "The server failed to handle the request. Please report the id of this error to the operator."


class NotFound(OpenEOError):
    status = 404
    template = "There is nothing at this address."


class MethodNotAllowed(OpenEOError):
    status = 405
    template = "This address does not support the HTTP method {method}."


class FeatureUnsupported(OpenEOError):
    status = 501
    template = "This back-end does not support {feature}."


class InfrastructureBusy(OpenEOError):
    status = 503
    template = "The service is overloaded or a part of it is down. Please try again later."


class RequestTimeout(OpenEOError):
    status = 408
    template = "The computation took longer than {seconds:g} s. Make the request smaller or use a batch job."


class UnsupportedApiVersion(OpenEOError):
    status = 404
    template = "API version '{version}' is not offered. Use {supported}."


class ContentTypeInvalid(OpenEOError):
    template = "The media type is not supported here. Allowed: {types}."


class RequestInvalid(OpenEOError):
    """The body is not a JSON object, or not one the endpoint accepts (not in the official list)."""

    template = "The request body is invalid: {reason}"


class RequestTooLarge(OpenEOError):
    """The body exceeds the operator's limit (not in the official list)."""

    status = 413
    template = "The request body is larger than {limit} bytes. Make it smaller."


class RangeNotSatisfiable(OpenEOError):
    """The requested range begins after the end of the file (not in the official list)."""

    status = 416
    template = "The requested range begins after the end of the file. Its size is in Content-Range."


# --- Accounts ------------------------------------------------------------------------------------


class AuthenticationRequired(OpenEOError):
    status = 401
    template = "Please sign in first: this address needs a bearer token."


class AuthenticationSchemeInvalid(OpenEOError):
    status = 403
    template = "This authentication method is not supported here."


class TokenInvalid(OpenEOError):
    status = 403
    template = "The token has expired or is not valid. Please sign in again."


class CredentialsInvalid(OpenEOError):
    status = 403
    template = "The user name or password is not correct."


class TooManyRequests(OpenEOError):
    """Too many attempts (not in the official list); ``seconds`` is how long to wait."""

    status = 429
    template = "Too many attempts. Please wait {seconds} s and try again."

    def __init__(self, message: str | None = None, *, seconds: int) -> None:
        super().__init__(message, seconds=seconds)
        self.seconds = seconds


class FormInvalid(OpenEOError):
    """A form was not sent from a page of this service (not in the official list)."""

    status = 403
    template = "The form was not sent from this page, or the page is too old. Reload the page and try again."


class SignInFailed(OpenEOError):
    """A provider did not sign the user in (not in the official list)."""

    status = 403
    template = "The provider did not sign you in: {reason}. Please try again."


class PermissionsInsufficient(OpenEOError):
    status = 403
    template = "Your account is not allowed to do this."


# --- Discovery -----------------------------------------------------------------------------------


class CollectionNotFound(OpenEOError):
    status = 404
    template = "There is no collection '{identifier}'. See GET /collections for the available ones."


class FileTypeInvalid(OpenEOError):
    template = "File format '{type}' is not available. Choose one of: {types}."


# --- Process graphs ------------------------------------------------------------------------------


class ProcessInvalid(OpenEOError):
    template = "The process is invalid: {reason}"


class ProcessGraphMissing(OpenEOError):
    template = "The process has no 'process_graph'."


class ProcessGraphInvalid(OpenEOError):
    template = "The process graph is invalid: {reason}"


class ProcessGraphComplexity(OpenEOError):
    template = "The process graph is too complex: {reason}"


class ProcessUnsupported(OpenEOError):
    template = "There is no process '{process}' in namespace '{namespace}'. See GET /processes."


class ProcessNamespaceInvalid(OpenEOError):
    template = "The namespace '{namespace}' of process '{process}' is invalid: {reason}"


class ProcessGraphNotFound(OpenEOError):
    status = 404
    template = "You have no stored process '{identifier}'. See GET /process_graphs."


class ProcessParameterUnsupported(OpenEOError):
    template = "Process '{process}' has no parameter '{parameter}'. {advice}"


class ProcessParameterInvalid(OpenEOError):
    template = "The value for parameter '{parameter}' of process '{process}' is invalid: {reason}"


class ProcessParameterRequired(OpenEOError):
    template = "Process '{process}' needs a value for parameter '{parameter}'."


class ProcessParameterMissing(OpenEOError):
    template = "The parameter '{parameter}' has no value here and no default."


# --- Files and storage ---------------------------------------------------------------------------


NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers of the system when there is no space left for a file."""


class StorageFailure(OpenEOError):
    status = 500
    template = "The server could not store or read files. Please try again later."
    is_permanent: bool = False
    """Whether another try would fail, too."""

    @classmethod
    def from_os_error(cls, error: OSError) -> StorageFailure:
        """Tell a full disk apart from other failures."""
        if error.errno in NO_ROOM:
            return cls("There is no space left on the server to store the file. Please try again later.")
        return cls()


class StorageQuotaExceeded(OpenEOError):
    template = "Your files would exceed your storage quota: {free} bytes are free. Delete files first."


class FileNotFound(OpenEOError):
    status = 404
    template = "There is no file '{file}'. See GET /files for yours."


class FilePathInvalid(OpenEOError):
    template = "The path is invalid: {reason}"


class FileOperationUnsupported(OpenEOError):
    template = "This is a folder, and only files can be downloaded or deleted. Name each file."


class FileContentInvalid(OpenEOError):
    template = "The file '{file}' can't be read: {reason}"


class FileSizeExceeded(OpenEOError):
    template = "The file is too large. The limit is {size}."


# --- Workspaces ----------------------------------------------------------------------------------


class WorkspaceNotFound(OpenEOError):
    status = 404
    template = "There is no workspace '{identifier}'. See GET /workspaces for yours."


class WorkspaceUnavailable(OpenEOError):
    status = 503
    template = "Workspace '{identifier}' is unavailable: its provider '{provider}' is no longer offered."


# --- User-supplied URLs --------------------------------------------------------------------------


class UrlForbidden(OpenEOError):
    template = "This back-end may not read from {host}. Use a public URL."


class UrlUnreachable(OpenEOError):
    template = "Reading from {host} failed: {reason}"
    server_status: int | None = None
    """The status with which the server has refused, if it did."""


class UrlTooLarge(OpenEOError):
    template = "The file at this URL is too large; the limit is {most} bytes."


# --- Batch jobs ----------------------------------------------------------------------------------


class JobNotFound(OpenEOError):
    status = 404
    template = "There is no batch job '{identifier}'. See GET /jobs for yours."


class JobLocked(OpenEOError):
    template = "The batch job is queued or running. Cancel it first, or wait until it has ended."


class JobNotStarted(OpenEOError):
    template = "The batch job was not started. Start it with POST /jobs/{identifier}/results."


class JobNotFinished(OpenEOError):
    template = "The batch job is {state}; its results are available once it has finished. Please try later."


class ResultLinkExpired(OpenEOError):
    status = 410
    template = "The link has expired, or the results were replaced or deleted. Request the results again."


class WorkerTooSmall(OpenEOError):
    template = (
        "The job asks for {wanted} of '{resource}' for a task, and the largest worker offers {most}. "
        "Change the job options."
    )


class PropertyNotEditable(OpenEOError):
    template = "The property '{property}' can't be changed."


class BudgetInvalid(OpenEOError):
    template = "The budget must be a number greater than 0, or null for no limit."


class PaymentRequired(OpenEOError):
    status = 402
    template = (
        "You have used your {hours:g} CPU hours of this month. Wait for the next one, or ask the operator."
    )


class BillingPlanInvalid(OpenEOError):
    template = "There are no billing plans here. Leave out 'plan', or set it to null."


# --- Secondary web services ----------------------------------------------------------------------


class ServiceNotFound(OpenEOError):
    status = 404
    template = "There is no service '{identifier}', or it is not yours. See GET /services for yours."


class ServiceUnsupported(OpenEOError):
    template = "There are no services of type '{type}'. Choose one of: {types}."


class ServiceConfigUnsupported(OpenEOError):
    template = "Services of this type have no setting '{parameter}'. They have: {available}."


class ServiceConfigInvalid(OpenEOError):
    template = "The value of the setting '{parameter}' is invalid: {reason}"


class ServiceDisabled(OpenEOError):
    """The owner has switched it off (not in the official list)."""

    status = 403
    template = "The service is switched off. Its owner can set 'enabled' to true."


class TileOutOfRange(OpenEOError):
    """The tile is outside the tile matrix (not in the official list)."""

    status = 404
    template = "The tile does not exist: {reason}"


# --- Exceptions of processes ---------------------------------------------------------------------


class ProcessError(OpenEOError):
    """Base of the exceptions that the process descriptions name."""


class ArrayElementNotAvailable(ProcessError):
    template = "{reason}"

    @classmethod
    def at_index(cls, index: Any, length: int) -> ArrayElementNotAvailable:
        """Describe an index outside an array of some length."""
        if not length:
            return cls(reason=f"Index {index} is out of range: the array is empty.")
        count = f"{length} elements (0 to {length - 1})" if length > 1 else "1 element (index 0)"
        return cls(reason=f"Index {index} is out of range: the array has {count}.")

    @classmethod
    def with_label(cls, label: Any, labels: Sequence[Any]) -> ArrayElementNotAvailable:
        """Describe a label that an array does not have, with the first labels that it has."""
        available = ", ".join(repr(v) for v in labels[:30])
        return cls(reason=f"The array has no element labelled {label!r}; its labels are {available}.")


class ArrayElementParameterConflict(ProcessError):
    template = "Give either 'index' or 'label', not both."


class ArrayElementParameterMissing(ProcessError):
    template = "Give either 'index' or 'label'."


class ArrayLabelConflict(ProcessError):
    template = "Both arrays have the label {label}. Labels must be distinct."


class ArrayLengthMismatch(ProcessError):
    template = "The array has {values} values but {labels} labels. Provide exactly one label per value."


class ArrayNotLabeled(ProcessError):
    template = "The array has no labels. Use 'index', or give no label."


class AscendingProbabilitiesRequired(ProcessError):
    template = "The probabilities must be in ascending order and without duplicates."


class BandExists(ProcessError):
    template = "The cube already has a band '{band}'. Choose another name."


class BandFilterParameterMissing(ProcessError):
    template = "Specify at least one band or one range of wavelengths."


class CountMismatch(ProcessError):
    template = "Give either one number of points or one number per geometry."


class DataCubeEmpty(ProcessError):
    template = "The data cube holds no data, so there is nothing to save. Check the extents and filters."


class DataCubePropertiesImmutable(ProcessError):
    template = "The child process changed the dimensions of the block: it was {before} and is {after}."


class DimensionAmbiguous(ProcessError):
    template = "The cube has no dimension of type 'bands', or has several of them."


class DimensionExists(ProcessError):
    template = "The cube already has a dimension '{name}'. Choose another name."


class DimensionLabelCountMismatch(ProcessError):
    template = "Dimension '{name}' has {count} labels; only one with a single label can be dropped."


class DimensionMismatch(ProcessError):
    template = "The dimensions of the cubes do not match: {reason}"


class DimensionMissing(ProcessError):
    template = "The cube has no dimension of type '{type}'."


class DimensionNotAvailable(ProcessError):
    template = "The cube has no dimension '{name}'. It has: {available}.{advice}"

    def __init__(self, message: str | None = None, *, advice: str = "", **fields: Any) -> None:
        super().__init__(message, advice=advice, **fields)


class DistinctDimensionLabelsRequired(ProcessError):
    template = "The labels of the intervals must be distinct. Give them in parameter 'labels'."


class DivisionByZero(ProcessError):
    template = "Division by zero is not supported here."


class FormatUnsuitable(ProcessError):
    template = "The data can't be written as {format}: {reason}"


class GeometriesOverlap(ProcessError):
    template = "The geometries overlap. They must be disjoint here."


class IncompatibleDataCubes(ProcessError):
    template = "The data cubes are incompatible: {reason}"


class IncompatibleGeometryTypes(ProcessError):
    template = "The cubes hold geometries of different kinds: {reason}"


class InvalidRuntime(ProcessError):
    template = "There is no UDF runtime '{runtime}'. Choose one of: {available}. See GET /udf_runtimes."


class InvalidVersion(ProcessError):
    template = "UDF runtime '{runtime}' has no version '{version}'. Choose one of: {available}, or null."


class KernelDimensionsUneven(ProcessError):
    template = "Each side of the kernel must have an odd number of cells; it is {shape}."


class LabelExists(ProcessError):
    template = "The label {label} already exists."


class LabelMismatch(ProcessError):
    template = "There are {source} source labels and {target} target labels; the numbers must be equal."


class LabelNotAvailable(ProcessError):
    template = "Label {label} does not exist. The labels are: {available}."


class LabelsNotEnumerated(ProcessError):
    template = "The labels of the dimension are not 0, 1, 2, …; list the labels to rename in 'source'."


class MinMaxSwapped(ProcessError):
    template = "The minimum {min} is larger than the maximum {max}. Swap them."


class MultiplicandMissing(ProcessError):
    template = "A multiplication needs at least two numbers."


class NirBandAmbiguous(ProcessError):
    template = "The near-infrared band could not be determined. Set parameter 'nir'. The bands are: {bands}."


class NoDataAvailable(ProcessError):
    template = "There is no data for the given extents: {reason}"


class OverlapResolverMissing(ProcessError):
    template = "The cubes overlap. Set 'overlap_resolver' to choose which value to keep."


class PropertiesUnsupported(ProcessError):
    template = "Filtering by '{property}' is not possible here."


class QuantilesParameterConflict(ProcessError):
    template = "Give either 'probabilities' or 'q', not both."


class QuantilesParameterMissing(ProcessError):
    template = "Give the probabilities of the quantiles."


class RedBandAmbiguous(ProcessError):
    template = "The red band could not be determined. Set parameter 'red'. The bands are: {bands}."


class TargetDimensionExists(ProcessError):
    template = "The cube already has a dimension '{name}'. Choose another name for the new one."


class TemporalExtentEmpty(ProcessError):
    template = "The temporal extent is empty: its end '{end}' must be later than its start '{start}'."


class TooManyDimensions(ProcessError):
    template = "The cube has several temporal dimensions ({dimensions}). Name one in 'dimension'."


class UdfFailed(ProcessError):
    """User code raised an error or ended its process (not in the official list)."""

    template = "The user-defined function failed: {reason}"


class UdfLimitExceeded(ProcessError):
    """User code was stopped at a limit (not in the official list)."""

    template = "The user-defined function was stopped: {reason}"


class UdfResultInvalid(ProcessError):
    """The result of a user-defined function does not fit (not in the official list)."""

    template = "The result of the user-defined function is not valid: {reason}"


class UdfUnavailable(ProcessError):
    """No user code runs here, or not this one (not in the official list)."""

    template = "User-defined functions cannot run here: {reason}"


class UnitMismatch(ProcessError):
    template = "The distance and the coordinates have different units: {reason}"
