//! Graceful restart as the helper of one peer, and as a restarting speaker (RFC 4724, RFC 8538). Pure.
