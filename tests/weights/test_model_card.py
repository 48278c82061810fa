from __future__ import annotations

import pytest
import yaml

from dehaze.weights.card import card
from dehaze.weights.checkpoint import Header

HEADER = Header(
    "small",
    "lite",
    working_size=160,
    transfer_radius=6,
    second_look=192,
    parameters=120106,
    recipe={"steps": 3},
    data={"ITS": {"pairs": 10, "licence": "research only"}},
    metrics={"SOTS indoor": {"psnr": 30.5, "command": "dehaze bench"}, "note": "old"},
    source_commit="abc",
    licence="MIT",
)


def front_matter(text: str) -> dict[str, object]:
    _, block, _ = text.split("---\n", 2)
    values: dict[str, object] = yaml.safe_load(block)
    return values


def test_the_card_says_what_the_header_says() -> None:
    text = card(HEADER, "hf://a/b/small.safetensors", "f" * 64)
    for words in (
        "# small",
        "-m hf://a/b/small.safetensors",
        "120,106",
        "160 pixels",
        "| Transfer radius | 6 |",
        "| Second look | mirrored, at 192 pixels |",
        "SOTS indoor: psnr 30.5 (`dehaze bench`)",
        "note: value old",
        "research only",
        '"steps": 3',
        "`abc`",
        "f" * 64,
    ):
        assert words in text


def test_a_teachers_card_does_not_send_anyone_to_run_it() -> None:
    text = card(Header("guide", "teacher"), "guide.safetensors", "")
    assert "dehaze distill --data ./RESIDE --teacher guide.safetensors" in text
    assert "dehaze run" not in text


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("Research only (RESIDE)", {"license": "other", "license_name": "research-only-reside"}),
        ("", {}),
    ],
)
def test_the_licence_is_one_the_hub_knows_or_named(licence: str, expected: dict[str, str]) -> None:
    values = front_matter(card(Header("x", "lite", licence=licence), "hf://a/b/c.safetensors", ""))
    assert {k: v for k, v in values.items() if k.startswith("license")} == expected
    assert values["pipeline_tag"] == "image-to-image"


def test_what_is_unknown_is_left_out() -> None:
    text = card(Header("x", "lite"), "hf://a/b/c.safetensors", "")
    assert "Measured" not in text
    assert "Training" not in text
    assert "not stated" in text
