"""A strict stand-in for a MongoDB 7.0 server on the wire, and the real one where a machine has it.

It speaks to the real driver over a real socket. What it answers follows the transcripts and sources of the real
server; where it does not know something, it refuses it by the code the real server has for the unknown.
"""
