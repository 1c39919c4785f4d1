//! What system tests share: namespaces, waiting, probes, guest kernels, foreign routers.
