"""Shapley values by the definition: every coalition of the others, weighted."""

from itertools import combinations
from math import factorial


def shapley_by_coalitions(players, value):
    """For each player the weighted mean of value(removed) − value(removed and the player), over all sets removed.

    `value` takes the set of removed players. The weight of a set S of the n − 1 others is |S|! (n − 1 − |S|)! / n!.
    """
    n = len(players)
    known = {}
    for size in range(n + 1):
        for chosen in combinations(players, size):
            known[frozenset(chosen)] = value(frozenset(chosen))
    found = {}
    for player in players:
        total = 0.0
        for removed, before in known.items():
            if player in removed:
                continue
            weight = factorial(len(removed)) * factorial(n - 1 - len(removed)) / factorial(n)
            total += weight * (before - known[removed | {player}])
        found[player] = total
    return found
