//! The process-wide TLS provider of HTTP clients: sources, the trace exporter and `peerdist status`. The endpoints of
//! the catalogue's ports name theirs explicitly.

/// Makes ring the default provider. A second call changes nothing.
pub fn install_tls_provider() {
    // An error says that a provider is installed already, which is what was asked for.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
