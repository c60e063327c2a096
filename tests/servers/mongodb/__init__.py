"""A strict stand-in for a MongoDB 7.0 server on the wire, and the launcher of a real mongod where the machine has one.

The stand-in speaks to the real driver over a real socket. Its replies follow transcripts and sources of the real server. It knows only the
commands and fields that the adapter and its tests use, and refuses every other one with the code of the real server.
``tests/contract/mongodb_wire`` runs the same cases against the stand-in and a real mongod; ``mutants`` proves that the cases can fail.

Differences from the real server: no elections and no lag (the first member of a set is always the primary, all members have the same
documents at once), no transactions, no authentication restrictions, no SCRAM-SHA-1, no JavaScript but ``sleep``. A secondary replies
"not primary" before it checks rights. A write is always confirmed by a majority.
"""
