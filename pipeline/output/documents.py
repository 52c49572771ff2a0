"""JSON documents of an output. Each has a model."""

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import StorageError


class Document(BaseModel):
    """A JSON object. Keys from a newer LakeLens are kept."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())


D = TypeVar("D", bound=Document)


def parsed(model: type[D], data: bytes, uri: str, advice: str = "") -> D:
    """Parse a document. Raises: StorageError, which names the file and the first problem, and adds the advice."""
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        reason = f"{where}: {first['msg']}" if where else first["msg"]
        raise StorageError(f"{uri} is damaged: {reason}{advice and '; ' + advice}.") from error
