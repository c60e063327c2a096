"""Long random tests. ``make test`` and ``make soak`` run short versions of them."""
