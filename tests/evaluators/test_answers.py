"""The cache, the pace and the purse of a judge behind an endpoint."""

import threading

from bakeoff.evaluators.answers import AnswerCache, Pace, Purse


def test_first_answer_stands_and_others_wait_for_the_file(tmp_path):
    """Eight writers at once lose nothing; a second answer to one question changes nothing."""
    cache = AnswerCache(tmp_path / "deep" / "cache.sqlite")
    writers = [threading.Thread(target=cache.put, args=(f"key {n % 4}", {"text": "A"})) for n in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    cache.put("key 0", {"text": "B"})
    assert cache.get(["key 0", "key 3", "key 4"]) == {"key 0": {"text": "A"}, "key 3": {"text": "A"}}


def test_pace_keeps_its_distance():
    """At 30 a minute one goes every two seconds; who comes late does not wait."""
    now, waited = [0.0], []

    def sleep(seconds):
        waited.append(seconds)
        now[0] += seconds

    pace = Pace(30, clock=lambda: now[0], sleep=sleep)
    for _ in range(3):
        pace.wait()
    assert waited == [2.0, 2.0]
    now[0] += 100
    pace.wait()
    assert waited == [2.0, 2.0]
    Pace(None, clock=lambda: now[0], sleep=sleep).wait()
    assert waited == [2.0, 2.0]


def test_purse_sets_aside_before_it_spends():
    """Two requests of at most 4 do not fit into 6, until the first turns out to have cost 1."""
    purse = Purse(6.0)
    assert purse.set_aside(4.0)
    assert not purse.set_aside(4.0)
    purse.settle(4.0, 1.0)
    assert purse.spent == 1.0
    assert purse.set_aside(4.0)
    assert Purse(None).set_aside(1e9)
