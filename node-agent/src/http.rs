//! HTTP endpoints: metrics, health and the API of the server.
