"""What is done about an instance in each state that Vast.ai may show."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.vastai.states import END_NOTICE_S, GRACE_S, PROVISION_S, Seen, action_for

SERVES = Seen("running", addressed=True, answers=True)
LONG = 10_000.0


@pytest.mark.parametrize(
    ("seen", "do", "blame"),
    [
        (None, "recreate", False),
        (SERVES, "keep", False),
        (replace(SERVES, answers=None), "keep", False),
        (replace(SERVES, answers=False), "wait", False),
        (replace(SERVES, answers=False, age_s=LONG), "replace", True),
        (replace(SERVES, addressed=False), "wait", False),
        (replace(SERVES, addressed=False, age_s=GRACE_S), "replace", True),
        (replace(SERVES, end_in_s=END_NOTICE_S - 1), "replace", False),
        (replace(SERVES, end_in_s=END_NOTICE_S + 1), "keep", False),
        (replace(SERVES, end_in_s=0), "replace", False),
        (Seen(""), "wait", False),
        (Seen("", age_s=PROVISION_S), "replace", True),
        (Seen("created"), "wait", False),
        (Seen("created", "Error: OCI runtime create failed: no device"), "replace", True),
        (Seen("loading", age_s=PROVISION_S), "wait", False),
        (Seen("loading", age_s=1800), "replace", True),
        (Seen("rebooting"), "wait", False),
        (Seen("exited"), "replace", False),
        (Seen("stopped", is_bid=True), "rebid", False),
        (Seen("exited", stopped=True, is_bid=True), "rebid", False),
        (Seen("stopped", is_bid=True, credit=False), "surface", False),
        (Seen("stopped"), "surface", False),
        (Seen("stopped", credit=False), "surface", False),
        (Seen("stopped", credit=True), "replace", False),
        (Seen("stopped", end_in_s=-1), "replace", False),
        (Seen("offline"), "wait", False),
        (Seen("offline", age_s=GRACE_S), "replace", True),
        (Seen("unknown", age_s=GRACE_S), "replace", True),
        (Seen("frozen"), "replace", True),
        (Seen("defrosting"), "wait", False),
        (Seen("defrosting", age_s=LONG), "replace", True),
    ],
)
def test_the_table(seen: Seen | None, do: str, blame: bool) -> None:
    verdict = action_for(seen)
    assert (verdict.do, verdict.blame_host) == (do, blame)


def test_a_container_that_ended_is_asked_for_its_log_before_it_goes() -> None:
    assert action_for(Seen("exited")).logs


def test_the_hosts_own_words_are_in_the_reason() -> None:
    assert "no such image" in action_for(Seen("loading", "pull failed:  no such\nimage", age_s=LONG)).why


def test_what_is_stopped_says_that_it_still_bills() -> None:
    for seen in (Seen("stopped"), Seen("stopped", is_bid=True), Seen("stopped", credit=False)):
        assert "disk still bills" in action_for(seen).why


@given(
    seen=st.builds(
        Seen,
        status=st.one_of(st.sampled_from(["", "created", "loading", "running", "exited", "offline"]), st.text()),
        message=st.text(),
        stopped=st.booleans(),
        is_bid=st.booleans(),
        addressed=st.booleans(),
        answers=st.sampled_from([None, True, False]),
        age_s=st.floats(0, 1e5),
        end_in_s=st.one_of(st.none(), st.floats(-1e6, 1e7)),
        credit=st.sampled_from([None, True, False]),
    )
)
def test_every_state_has_an_answer_and_none_is_waited_for_without_end(seen: Seen) -> None:
    verdict = action_for(seen)
    assert verdict.why
    if verdict.do == "wait":
        assert action_for(replace(seen, age_s=LONG)).do == "replace"
    if verdict.do == "keep":
        assert seen.status == "running" and seen.addressed and seen.answers is not False
