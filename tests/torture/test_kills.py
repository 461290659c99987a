"""Kill -9 of the real server under mixed load; `make torture` does the same for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.samples import assert_sound
from tests.support.commands import registry
from tests.torture.kills import Mixed, run

KILLS = 200


@pytest.mark.xdist_group("torture")
def test_kills_under_load(tmp_path: Path) -> None:
    """Invariant 1: what was acknowledged before a kill is there after it, every byte."""
    report = run(tmp_path / "registry", kills=KILLS, seed=20)
    assert report.tally.lost == []
    assert report.kills == KILLS
    # the load was mixed, and kills met calls that were under way
    assert report.tally.pushed > KILLS
    assert report.tally.pulled > KILLS / 2
    assert report.tally.deleted > KILLS / 10
    assert report.tally.resumed > 0
    assert report.tally.swept > KILLS / 2
    assert report.tally.in_doubt > KILLS / 10
    assert_sound(tmp_path / "registry")


def test_customers_notice_a_loss(tmp_path: Path) -> None:
    """The loop can fail: a tag that is deleted behind a customer's back is a loss."""
    mixed = Mixed(seed=1, customers=1)
    (customer,) = mixed.customers
    first, second = tmp_path / "first", tmp_path / "second"
    with registry(first) as url:
        threads = mixed.work(url, requests=60)
    for thread in threads:
        thread.join()
    assert mixed.lost == []
    assert customer.tally.pushed > 0
    with registry(second) as url:  # another store: all is gone
        mixed.settle(url)
    assert mixed.lost != []
