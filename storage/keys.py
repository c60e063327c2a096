"""Keys of requests: random, and recognisable as keys of one ledger."""

from __future__ import annotations

import hmac
import secrets
import string

KEY_ALPHABET = string.ascii_lowercase + string.digits
KEY_LENGTH = 16
CHECK_LENGTH = 4


def random_key(length: int = KEY_LENGTH) -> str:
    """Random letters and digits that nobody can guess (62 bits at 12 characters)."""
    return "".join(secrets.choice(KEY_ALPHABET) for _ in range(length))


def request_key(ledger: str) -> str:
    """A new key of a request. Its last characters show that this ledger made it, also after the ledger lost the request.

    They are no secret and protect nothing: the random part does.
    """
    random_part = random_key(KEY_LENGTH - CHECK_LENGTH)
    return f"{random_part}{_check(random_part, ledger)}"


def is_key_of(key: str, ledger: str) -> bool:
    """Whether this ledger made the key. One of another ledger passes in one of 1.7 million cases, and so does one of a version without check characters."""
    random_part, check = key[:-CHECK_LENGTH], key[-CHECK_LENGTH:]
    return len(key) == KEY_LENGTH and check == _check(random_part, ledger)


def _check(random_part: str, ledger: str) -> str:
    number = int.from_bytes(hmac.digest(ledger.encode(), random_part.encode(), "sha256"))
    return "".join(
        KEY_ALPHABET[number // len(KEY_ALPHABET) ** place % len(KEY_ALPHABET)] for place in range(CHECK_LENGTH)
    )
