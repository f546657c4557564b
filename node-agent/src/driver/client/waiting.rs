//! A client that waits for the address of its server answers probes meanwhile: it is alive and not ready. In a cluster
//! the address may come minutes after the pod, and a pod that does not answer is killed.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use peerdist_core::names::NodeName;

use super::ClientError;
use crate::http::{self, CLIENT_HTTP_PORT, HttpService, Readiness};
use crate::metrics::{ClassCounters, Metrics};

/// Readiness: the node knows where the server is.
const CHECK_SERVER: &str = "server";

/// Waits, and answers probes until then.
pub(super) async fn answering_probes<T>(
    address: IpAddr,
    node: &NodeName,
    wait: impl Future<Output = T>,
) -> Result<T, ClientError> {
    let service = HttpService {
        metrics: Arc::new(Metrics::new(Arc::new(ClassCounters::default()))?),
        readiness: Readiness::new([CHECK_SERVER]),
        api: None,
    };
    let served = http::serve_while(SocketAddr::new(address, CLIENT_HTTP_PORT), service, wait).await;
    // Without the listener the port is free again for what follows.
    served.map(|(_, outcome)| outcome).map_err(|source| ClientError::of_http(node, address, source))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 83, 1, 1));

    async fn status(path: &str) -> String {
        let mut stream = TcpStream::connect((ADDRESS, CLIENT_HTTP_PORT)).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn who_waits_for_the_server_is_alive_and_not_ready_and_leaves_the_port() {
        let node: NodeName = "n1".parse().unwrap();
        let asked = answering_probes(ADDRESS, &node, async { (status("/livez").await, status("/readyz").await) }).await;
        assert_eq!(asked.unwrap(), ("200".to_owned(), "503".to_owned()));
        TcpListener::bind((ADDRESS, CLIENT_HTTP_PORT)).await.unwrap();
    }
}
