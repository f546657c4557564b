//! Opens the storage of a role, client or server. After a crash that may mean to look at every file of a large tree,
//! which takes minutes. The role is alive and not ready meanwhile: Kubernetes kills a pod that does not answer, and the
//! next one would begin anew.

use std::net::SocketAddr;
use std::path::Path;
use std::thread;

use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::http::{self, HttpBindError, HttpService};
use crate::store::{NodeStore, StoreError, StoreLimits};

/// Readiness: the storage is open.
pub(super) const CHECK_STORAGE: &str = "storage";
/// What people read until then.
const BEING_CHECKED: &str = "storage is being checked";

/// Binds the HTTP endpoints at `address`, then opens the store at `root` while they are served. The listener comes back
/// with what became of the store, for the role to serve on.
pub(super) async fn open_store(
    root: &Path,
    address: SocketAddr,
    service: HttpService,
) -> Result<(TcpListener, Result<NodeStore, StoreError>), HttpBindError> {
    let root = root.to_owned();
    open_answering_probes(address, service, move || {
        tracing::info!(root = %root.display(), "opening the storage");
        NodeStore::open(&root, StoreLimits { limit_bytes: None })
    })
    .await
}

async fn open_answering_probes<S: Send + 'static, E: Send + 'static>(
    address: SocketAddr,
    service: HttpService,
    open: impl FnOnce() -> Result<S, E> + Send + 'static,
) -> Result<(TcpListener, Result<S, E>), HttpBindError> {
    let readiness = service.readiness.clone();
    readiness.set(CHECK_STORAGE, Err(BEING_CHECKED.to_owned()));
    let (listener, opened) = http::serve_while(address, service, on_thread_of_its_own(open)).await?;
    if opened.is_ok() {
        readiness.set(CHECK_STORAGE, Ok(()));
    }
    Ok((listener, opened))
}

/// Not on a thread of the runtime, which waits for those when it ends: who is told to end in the midst of the work ends
/// at once, and leaves no more behind than a crash does.
async fn on_thread_of_its_own<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (end, ended) = oneshot::channel::<()>();
    let thread = thread::spawn(move || {
        // Dropped with the work, also when that panics.
        let _end = end;
        work()
    });
    // Nothing is ever sent: that the sender is gone is the news.
    let _ = ended.await;
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::{Arc, mpsc};

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::http::{CLIENT_HTTP_PORT, Readiness, install_tls_provider};
    use crate::metrics::Metrics;

    /// Tests run side by side: each gives a number of its own, which no test of `waiting` has.
    fn address(number: u8) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 83, 2, number)), CLIENT_HTTP_PORT)
    }

    fn service() -> HttpService {
        HttpService {
            metrics: Arc::new(Metrics::new(Arc::default()).unwrap()),
            readiness: Readiness::new([CHECK_STORAGE, "enrolled"]),
            api: None,
        }
    }

    async fn get(address: SocketAddr, path: &str) -> (u16, String) {
        install_tls_provider();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.get(format!("http://{address}{path}")).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    #[tokio::test]
    async fn role_is_alive_and_not_ready_and_tells_why_while_its_storage_is_checked() {
        let (address, service) = (address(1), service());
        let readiness = service.readiness.clone();
        let (finish, finished) = mpsc::channel();
        let opening = open_answering_probes(address, service, move || finished.recv());
        let asking = async {
            let answers = (get(address, "/livez").await, get(address, "/readyz").await, get(address, "/metrics").await);
            finish.send("opened").unwrap();
            answers
        };
        let (outcome, (alive, ready, metrics)) = tokio::join!(opening, asking);
        assert_eq!(alive, (200, "ok\n".to_owned()));
        assert_eq!(ready, (503, "enrolled: not yet\nstorage: storage is being checked\n".to_owned()));
        assert!(metrics.1.contains("peerdist_transfer_bytes_total"), "{}", metrics.1);
        let (listener, opened) = outcome.unwrap();
        assert_eq!((opened, listener.local_addr().unwrap()), (Ok("opened"), address));
        assert_eq!(readiness.report(), "enrolled: not yet\nstorage: ok\n");
    }

    #[tokio::test]
    async fn role_whose_storage_cannot_be_opened_is_never_ready() {
        let service = HttpService { readiness: Readiness::new([CHECK_STORAGE]), ..service() };
        let readiness = service.readiness.clone();
        let (_, opened) = open_answering_probes(address(2), service, || Err::<(), _>("no disk")).await.unwrap();
        assert_eq!((opened, readiness.is_ready()), (Err("no disk"), false));
    }

    #[test]
    fn who_is_told_to_end_does_not_wait_for_the_check() {
        let (address, stop) = (address(3), CancellationToken::new());
        let (finish, finished) = mpsc::channel::<()>();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let opening = open_answering_probes(address, service(), move || finished.recv());
            let stopping = async {
                assert_eq!(get(address, "/livez").await.0, 200);
                stop.cancel();
            };
            let (opened, ()) = tokio::join!(stop.run_until_cancelled(opening), stopping);
            assert!(opened.is_none());
        });
        drop(runtime);
        assert!(finish.send(()).is_ok(), "the check still goes on, and the runtime has ended");
    }
}
