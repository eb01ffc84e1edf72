# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmp_ros.fields import (
    SettingsError,
    allowed_values,
    bool_field,
    check_value,
    choice_field,
    number_field,
    settings_from_mapping,
    size_field,
    str_field,
    strings_field,
)
from bmp_ros.loop.settings import LoopSettings
from bmp_ros.tracking import KeyframeSettings, SmoothingSettings, TrackerSettings


@dataclass(frozen=True)
class Oven:
    """One field of every kind."""

    rack: int = number_field(low=1, high=4, integer=True, text="rack from below")
    heat: float = number_field(0.5, low=0.0, high=1.0, text="share of full heat")
    timer: float | None = number_field(None, low=0.0, high=9.0, optional=True, text="minutes")
    mode: str = choice_field("grill", choices=("grill", "bake"), text="mode")
    name: str = str_field("oven", text="its name")
    light: bool = bool_field(True, text="whether one sees anything")
    window: int | tuple[int, int] = size_field(8, low=4, high=16, multiple=4, text="of glass")
    dishes: tuple[str, ...] = strings_field((), text="what is in it")
    tools: tuple[str, ...] = strings_field((), choices=("spoon", "fork"), text="beside it")


SIDES = "a multiple of 4 from 4 to 16, or two of them as [width, height]"


def read(**values: Any) -> Oven:
    return settings_from_mapping(Oven, {"rack": 1, **values}, "kitchen.yaml: oven")


def test_defaults_and_types() -> None:
    assert read() == Oven(1, 0.5, None, "grill", "oven", True, 8, (), ())
    heat = read(heat=1).heat
    assert heat == 1.0 and type(heat) is float, "a whole number where a number is asked for"
    assert read(timer=None).timer is None
    assert read(window=16).window == 16
    assert read(window=[4, 12]).window == read(window=(4, 12)).window == (4, 12)
    assert read(dishes=["soup", "pie"]).dishes == ("soup", "pie") and read(dishes=[]).dishes == ()
    assert read(tools=("fork", "fork")).tools == ("fork", "fork")


@pytest.mark.parametrize(
    "key, value, allowed",
    [
        ("rack", 0, "a whole number from 1 to 4"),
        ("rack", 5, "a whole number from 1 to 4"),
        ("rack", 2.0, "a whole number from 1 to 4"),
        ("rack", True, "a whole number from 1 to 4"),
        ("rack", "2", "a whole number from 1 to 4"),
        ("rack", None, "a whole number from 1 to 4"),
        ("heat", True, "a number from 0 to 1"),
        ("heat", 1.5, "a number from 0 to 1"),
        ("heat", -0.1, "a number from 0 to 1"),
        ("heat", float("nan"), "a number from 0 to 1"),
        ("heat", float("inf"), "a number from 0 to 1"),
        ("heat", 10**400, "a number from 0 to 1"),
        ("heat", None, "a number from 0 to 1"),
        ("timer", False, "a number from 0 to 9, or null"),
        ("mode", "boil", "one of grill, bake"),
        ("mode", ["grill"], "one of grill, bake"),
        ("mode", 1, "one of grill, bake"),
        ("name", 5, "a string"),
        ("name", None, "a string"),
        ("light", 1, "true or false"),
        ("light", "yes", "true or false"),
        ("window", 6, SIDES),
        ("window", 20, SIDES),
        ("window", 8.0, SIDES),
        ("window", True, SIDES),
        ("window", None, SIDES),
        ("window", "8x8", SIDES),
        ("window", [], SIDES),
        ("window", [8], SIDES),
        ("window", [8, 0], SIDES),
        ("window", [8, [8]], SIDES),
        ("window", [4, 4, 4], SIDES),
        ("dishes", "soup", "a list of strings"),
        ("dishes", ["soup", 3], "a list of strings"),
        ("dishes", None, "a list of strings"),
        ("tools", ["fork", "knife"], "a list of spoon, fork"),
    ],
)
def test_error_names_place_key_value_and_what_is_allowed(
    key: str, value: Any, allowed: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read(**{key: value})
    text = str(caught.value)
    if value == 10**400:  # shortened: a value may be a whole file
        assert len(text) < 400
        text = text.replace(text[text.index("1000") : text.index(", allowed")], repr(value))
    assert text == f"kitchen.yaml: oven: {key} is {value!r}, allowed: {allowed}"


def test_unknown_key() -> None:
    with pytest.raises(SettingsError) as caught:
        read(rak=2)
    message = "kitchen.yaml: oven: unknown key 'rak'; did you mean 'rack'? Known keys: rack, heat"
    assert str(caught.value).startswith(message)
    with pytest.raises(SettingsError) as caught:
        read(zzz=2)
    assert "unknown key 'zzz'. Known keys: rack" in str(caught.value)
    with pytest.raises(SettingsError, match="unknown key 5"):
        settings_from_mapping(Oven, {5: 1}, "here")


def test_missing_key() -> None:
    with pytest.raises(SettingsError, match=r"here: key 'rack' is missing \(rack from below\)"):
        settings_from_mapping(Oven, {}, "here")


numeric = [item for item in fields(LoopSettings) if "low" in item.metadata]


@given(st.sampled_from(numeric), st.floats() | st.integers() | st.just(10**400))
def test_numbers_are_taken_exactly_in_their_range(item: Any, value: float) -> None:
    low, high, kind = (item.metadata[name] for name in ("low", "high", "kind"))
    fits = low <= value <= high and (kind is float or type(value) is int)
    if fits:
        assert check_value(item, value, "here") == value
        assert type(check_value(item, value, "here")) is kind
    else:
        with pytest.raises(SettingsError, match=f"here is .*allowed: {allowed_values(item)}"):
            check_value(item, value, "here")


@given(st.fixed_dictionaries({}, optional={item.name: st.just(item.default) for item in numeric}))
def test_defaults_are_in_their_range(values: dict[str, Any]) -> None:
    assert settings_from_mapping(LoopSettings, values, "here") == LoopSettings()


anything = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text("ab", max_size=2)
    | st.just(["a"])
)


@given(st.dictionaries(st.sampled_from([item.name for item in fields(LoopSettings)]), anything))
def test_anything_else_is_a_settings_error_and_nothing_worse(values: dict[str, Any]) -> None:
    try:
        settings = settings_from_mapping(LoopSettings, values, "here")
    except SettingsError as error:
        assert str(error).startswith("here: ")
    else:
        for key, value in values.items():
            assert getattr(settings, key) == value


def test_every_setting_says_what_it_is() -> None:
    for item in fields(LoopSettings):
        assert len(item.metadata["text"]) > 10 and allowed_values(item)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: LoopSettings(iterations=0), "LoopSettings.iterations is 0, allowed: "),
        (lambda: replace(LoopSettings(), detection_threshold=float("nan")), "threshold is nan"),
        (
            lambda: TrackerSettings(birth_score=1.5),
            "TrackerSettings.birth_score is 1.5, allowed: ",
        ),
        (lambda: TrackerSettings(confirm_hits=np.int64(0)), "confirm_hits is 0"),
        (lambda: SmoothingSettings(beta=-1), "SmoothingSettings.beta is -1"),
        (lambda: KeyframeSettings(detection_interval=2.5), "detection_interval is 2.5"),
    ],
)
def test_settings_made_in_python_are_checked_as_well(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        make()


def test_numbers_of_numpy_are_numbers() -> None:
    settings = TrackerSettings(birth_score=np.float32(0.25), confirm_hits=np.int64(3))  # type: ignore[arg-type]
    assert (settings.birth_score, settings.confirm_hits) == (0.25, 3)
    assert type(settings.birth_score) is float and type(settings.confirm_hits) is int
    assert type(TrackerSettings(lost_s=2).lost_s) is float
