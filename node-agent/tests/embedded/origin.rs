//! An HTTP server that says what the test wants, once a request.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rustls::{ServerConnection, StreamOwned};

/// What was asked.
pub(crate) struct Asked {
    pub(crate) path: String,
    /// How often this origin was asked before.
    pub(crate) number: usize,
    /// First byte of the range.
    pub(crate) range: Option<usize>,
    /// The validator that the rest must have.
    pub(crate) if_range: Option<String>,
    /// The credentials.
    pub(crate) authorization: Option<String>,
}

/// A response: status and headers, the whole body that is announced, and how much of it is sent.
pub(crate) struct Answer {
    status: u16,
    headers: String,
    body: Vec<u8>,
    sent_bytes: usize,
}

impl Answer {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: String::new(), body: Vec::new(), sent_bytes: 0 }
    }

    /// What a well-behaved origin says: the rest when the validator still holds, otherwise all.
    pub(crate) fn file(asked: &Asked, etag: &str, body: &[u8]) -> Self {
        let fits = asked.if_range.as_ref().is_none_or(|validator| validator == etag);
        let first = asked.range.filter(|&first| fits && first < body.len());
        let total = body.len();
        let range = first.map(|first| format!("Content-Range: bytes {first}-{}/{total}\r\n", total - 1));
        let body = body[first.unwrap_or(0)..].to_vec();
        let headers = format!("ETag: {etag}\r\n{}", range.unwrap_or_default());
        Self { status: if first.is_some() { 206 } else { 200 }, headers, sent_bytes: body.len(), body }
    }

    /// Breaks off after that many bytes.
    pub(crate) fn cut(self, sent_bytes: usize) -> Self {
        Self { sent_bytes, ..self }
    }
}

/// What requests come through.
pub(crate) trait Connection: Read + Write + Send + 'static {
    /// Says that nothing more is sent.
    fn end(&mut self) -> io::Result<()>;
}

impl Connection for TcpStream {
    fn end(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Connection for StreamOwned<ServerConnection, TcpStream> {
    fn end(&mut self) -> io::Result<()> {
        self.conn.send_close_notify();
        self.flush()?;
        self.sock.end()
    }
}

/// Starts an origin that lives as long as the test process, and gives its address.
pub(crate) fn origin(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> String {
    format!("http://{}", listen(|stream| stream, answer))
}

/// Starts an origin whose connections are what `accepted` makes of them, and gives host and port.
pub(crate) fn listen<C: Connection>(
    accepted: impl Fn(TcpStream) -> C + Send + 'static,
    answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let (connection, answer) = (accepted(stream), answer.clone());
            thread::spawn(move || serve(connection, number, &*answer));
        }
    });
    address
}

fn serve(connection: impl Connection, number: usize, answer: &dyn Fn(&Asked) -> Answer) -> Option<()> {
    let mut reader = BufReader::new(connection);
    let lines: Vec<String> =
        reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let header = |name: &str| {
        let found =
            lines.iter().find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)));
        found.map(|(_, value)| value.to_owned())
    };
    let asked = Asked {
        path: lines.first()?.split(' ').nth(1)?.to_owned(),
        number,
        range: header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()),
        if_range: header("if-range"),
        authorization: header("authorization"),
    };
    let Answer { status, headers, body, sent_bytes } = answer(&asked);
    let head =
        format!("HTTP/1.1 {status} Test\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    let connection = reader.get_mut();
    connection.write_all(head.as_bytes()).ok()?;
    connection.write_all(&body[..sent_bytes]).ok()?;
    connection.end().ok()?;
    // Waiting for the other end keeps what was sent from being thrown away by a reset.
    reader.read_to_end(&mut Vec::new()).ok()?;
    Some(())
}
