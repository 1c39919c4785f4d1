//! Framing: the 19-octet header (RFC 4271 §4.1) and where one message ends.
