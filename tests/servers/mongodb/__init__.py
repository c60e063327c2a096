"""A strict stand-in for a MongoDB 7.0 server on the wire, and the real one where a machine has it.

It speaks to the real driver over a real socket. What it answers follows the transcripts and sources of the real
server; where it does not know something, it refuses it by the code the real server has for the unknown.
``tests/contract/mongodb_wire`` asks the same cases of it and of a real mongod; ``broken`` is how they are seen to fail.

Unlike the real server it has no elections and no lag (the first member of a set stays its primary, all members have
the same documents at once), no locks (a transaction's writes are seen by others before it commits), no unique
indexes, no server-side JavaScript but ``sleep``, and a small part of the query language. On a secondary it says
"not primary" before it looks at rights; of routers' own operations it knows nothing.
"""
