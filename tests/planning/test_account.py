"""Every input row ends in exactly one count."""

from dataclasses import asdict, fields

import pytest
from hypothesis import given, strategies as st

from pipeline.errors import AccountError
from pipeline.planning.account import Account, Counts

BALANCED = Counts(input=36, already_done=1, ok=2, failed=3, duplicates=4, invalid=5, not_selected=6, left=15)


def test_the_right_side_is_every_count_but_the_input() -> None:
    assert BALANCED.accounted == 36


def test_the_total_adds_up_every_count_of_every_dataset() -> None:
    total = Account({"a": BALANCED, "b": Counts(input=1, ok=1)}).total
    assert total == Counts(
        input=37, already_done=1, ok=3, failed=3, duplicates=4, invalid=5, not_selected=6, left=15
    )


def test_an_empty_account_balances() -> None:
    Account({}).check()
    assert Account({}).total == Counts()


def test_committed_rows_move_from_left_to_ok_and_failed() -> None:
    before = Account({"a": BALANCED, "b": Counts(input=1, left=1)})
    after = before.after([("a", 3, 1), ("a", 0, 2), ("b", 1, 0)])
    assert after.datasets["a"] == Counts(36, 1, 2 + 3, 3 + 3, 4, 5, 6, 15 - 6)
    assert after.datasets["b"] == Counts(input=1, ok=1)
    after.check()


def test_an_account_is_not_changed_by_what_comes_after() -> None:
    before = Account({"a": BALANCED})
    before.after([("a", 3, 1)])
    assert before.datasets["a"] == BALANCED


def test_more_rows_than_were_left_do_not_balance() -> None:
    with pytest.raises(AccountError):
        Account({"a": Counts(input=1, left=1)}).after([("a", 2, 0)]).check()


def test_rows_of_a_dataset_that_never_came_in_do_not_balance() -> None:
    with pytest.raises(AccountError, match="'ghost'"):
        Account({"a": BALANCED}).after([("ghost", 1, 0)]).check()


@pytest.mark.parametrize("name", [field.name for field in fields(Counts)])
def test_a_negative_count_fails_even_if_both_sides_are_equal(name: str) -> None:
    counts = Counts(**{"input": -1, name: -1}) if name != "input" else Counts(input=-1, ok=-1)
    assert counts.input == counts.accounted
    with pytest.raises(AccountError):
        Account({"a": counts}).check()


def test_the_sentence_names_the_dataset_and_both_sides() -> None:
    with pytest.raises(AccountError) as caught:
        Account({"fine": BALANCED, "my photos": Counts(input=5, ok=3)}).check()
    sentence = str(caught.value)
    assert "'my photos'" in sentence
    assert "5 rows came in" in sentence
    assert "3 are accounted for" in sentence
    assert "fine" not in sentence
    assert caught.value.exit_code == 4


def test_the_document_has_the_total_and_the_datasets_in_order() -> None:
    document = Account({"b": BALANCED, "a": Counts(input=1, left=1)}).to_dict()
    assert list(document["datasets"]) == ["a", "b"]
    assert document["datasets"]["b"] == asdict(BALANCED)
    assert document["total"] == {**asdict(BALANCED), "input": 37, "left": 16}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(0, 9)), max_size=30))
def test_commits_keep_the_balance_however_they_are_cut(commits: list[tuple[str, int, int]]) -> None:
    pending = {name: sum(ok + failed for d, ok, failed in commits if d == name) for name in "abc"}
    account = Account({name: Counts(input=rows, left=rows) for name, rows in pending.items()})
    at_once = account.after(commits)
    for commit in commits:
        account = account.after([commit])
        account.check()
    assert account == at_once
    assert account.total.left == 0
    assert account.total.ok + account.total.failed == sum(pending.values())
