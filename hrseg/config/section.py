"""What all sections of settings are made of: groups that refuse unknown names, and the types of their settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


@dataclass(frozen=True)
class TypeName:
    """What the settings page calls a type, where its annotation alone would say less."""

    text: str


Positive = Annotated[int, Field(ge=1)]
PositiveNumber = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, TypeName("name")]
PieceName = Annotated[str, TypeName("name or dotted path")]
Size = Annotated[tuple[Positive, Positive], TypeName("[height, width]")]  # in pixels
ValueRange = Annotated[tuple[float, float], TypeName("[low, high]")]
FactorRange = Annotated[tuple[PositiveNumber, PositiveNumber], TypeName("[low, high]")]
Precision = Literal["fp32", "bf16", "fp16"]


def expand_home(value: Any) -> Any:
    """A path, or a text that is one, in which a leading ~ has become the home folder; anything else as it is."""
    try:
        if isinstance(value, Path):
            return value.expanduser()
        if isinstance(value, str) and value.startswith("~/"):
            return str(Path(value).expanduser())
    except RuntimeError as error:  # a user who is not known here
        raise ValueError(str(error)) from None
    return [expand_home(item) for item in value] if isinstance(value, list) else value


class Section(BaseModel):
    """A group of settings; an unknown name is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False, use_attribute_docstrings=True
    )

    @field_validator("*", mode="after")
    @classmethod
    def _home(cls, value: Any) -> Any:
        return expand_home(value)


class OpenSection(Section):
    """A group of settings that also takes the options of the piece it names; `options` returns those.

    `check_options` checks them against the piece's own signature, where that piece is known.
    """

    model_config = ConfigDict(extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__ or {})


class NetworkSection(OpenSection):
    """A group of settings with `arch` and `encoder`, of which null is as good as not set."""

    @model_validator(mode="before")
    @classmethod
    def _leave_null_unset(cls, values: Any) -> Any:
        """An arch or encoder of null is one that nobody chose."""
        if not isinstance(values, dict):
            return values
        return {k: v for k, v in values.items() if v is not None or k not in ("arch", "encoder")}
