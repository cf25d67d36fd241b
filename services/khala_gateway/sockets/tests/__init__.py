"""Tests of the sockets' protocol, without sockets."""
