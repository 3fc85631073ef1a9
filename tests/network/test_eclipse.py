"""What an attacker gets of a node's view by telling it addresses; figures: benchmarks.eclipse."""

from __future__ import annotations

from eclipse import Attack, simulate


def test_one_network_of_an_attacker_gets_next_to_nothing() -> None:
    invented = simulate(Attack("", 1, 3000, anywhere=True), trials=50)
    assert invented.new < 0.2  # of addresses told, nearly half are his
    assert invented.tried == 0.0
    assert invented.outbound < 0.1
    own = simulate(Attack("", 1, 3000, reached=300), trials=50)
    assert own.new < 0.05
    assert own.tried < 0.35  # 2 of 64 buckets are 128 places; the honest 400 are as many as there
    assert own.outbound <= 1 / 8  # one peer per netgroup
    assert own.all_eight == 0.0


def test_sixteen_networks_do_not_capture_it_either() -> None:
    out = simulate(Attack("", 16, 3000, reached=300), trials=50)
    assert out.outbound < 0.5
    assert out.all_eight == 0.0
