"""Long random tests: state machine, bad input, kills, a faulty network, load. ``make test`` and ``make soak`` run short versions of them."""
