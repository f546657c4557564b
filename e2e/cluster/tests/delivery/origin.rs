//! An HTTP server with a file and another one of the same name, on an address of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use rand::RngCore;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// No role uses it.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 81, 9, 9);

/// Who may have what is guarded.
pub(crate) const USERNAME: &str = "ci";
pub(crate) const PASSWORD: &str = "seven-dwarfs";
const AUTHORISATION: &str = "Authorization: Basic Y2k6c2V2ZW4tZHdhcmZz";

/// The server; it ends with the test's process.
pub(crate) struct Origin {
    address: SocketAddr,
    content: Arc<Vec<u8>>,
    other_content: Arc<Vec<u8>>,
}

impl Origin {
    pub(crate) async fn start(bytes: usize) -> Result<Self> {
        let [content, other_content] = [0, 1].map(|number| {
            let mut content = vec![0; bytes];
            SmallRng::seed_from_u64(bytes as u64 + number).fill_bytes(&mut content);
            Arc::new(content)
        });
        let listener = TcpListener::bind((ADDRESS, 0)).await?;
        let address = listener.local_addr()?;
        let served = [content.clone(), other_content.clone()];
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, served.clone()));
            }
        });
        Ok(Self { address, content, other_content })
    }

    pub(crate) fn address(&self) -> IpAddr {
        self.address.ip()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/app.bin", self.address)
    }

    /// A file of the same name and size that shares nothing with it.
    pub(crate) fn other_url(&self) -> String {
        format!("http://{}/other/app.bin", self.address)
    }

    pub(crate) fn missing_url(&self) -> String {
        format!("http://{}/nothing", self.address)
    }

    /// The same file for those who bring the credentials.
    pub(crate) fn guarded_url(&self) -> String {
        format!("http://{}/guarded/app.bin", self.address)
    }

    pub(crate) fn content(&self) -> &[u8] {
        &self.content
    }

    pub(crate) fn other_content(&self) -> &[u8] {
        &self.other_content
    }
}

async fn answer(stream: TcpStream, [content, other_content]: [Arc<Vec<u8>>; 2]) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut request, mut line) = (String::new(), String::new());
    let mut is_authorised = false;
    stream.read_line(&mut request).await?;
    while stream.read_line(&mut line).await? > 2 {
        is_authorised |= line.trim_end().eq_ignore_ascii_case(AUTHORISATION);
        line.clear();
    }
    let (status, body): (&str, &[u8]) = match request.split(' ').nth(1) {
        Some("/app.bin") => ("200 OK", &content),
        Some("/other/app.bin") => ("200 OK", &other_content),
        Some("/guarded/app.bin") if is_authorised => ("200 OK", &content),
        Some("/guarded/app.bin") => ("401 Unauthorized", b""),
        _ => ("404 Not Found", b""),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    Ok(stream.shutdown().await?)
}
