//! QUIC on the ports of the catalogue.
