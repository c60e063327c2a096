"""The demo: the whole product on this machine, without any account. ``make demo`` starts it."""
