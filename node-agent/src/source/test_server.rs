//! A real HTTP server for tests that misbehaves on request: cuts connections, lies about lengths, changes content.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// First byte asked for.
    pub(crate) fn range(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// What is answered. The length is announced unless a header says otherwise.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Bytes after which the connection breaks.
    pub(crate) cut_after: Option<usize>,
    /// Says nothing more after that, and keeps the connection.
    pub(crate) hang: bool,
    /// Sends the rest a byte at a time, with this pause after each.
    pub(crate) trickle: Option<Duration>,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(crate) fn ok(body: &[u8]) -> Self {
        Self { status: 200, body: body.to_vec(), ..Self::default() }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn cut(mut self, after: usize) -> Self {
        self.cut_after = Some(after);
        self
    }

    /// What a well-behaved server answers: the rest, if the validator still holds.
    pub(crate) fn file(request: &Request, etag: &str, body: &[u8]) -> Self {
        let fits = request.header("if-range").is_none_or(|asked| asked == etag);
        let reply = match request.range().filter(|_| fits) {
            Some(first) if first >= body.len() => Self::status(416),
            Some(first) => Self::part(first, body),
            None => Self::ok(body),
        };
        reply.with("ETag", etag)
    }

    pub(crate) fn part(first: usize, body: &[u8]) -> Self {
        let range = format!("bytes {first}-{}/{}", body.len() - 1, body.len());
        Self { status: 206, body: body[first..].to_vec(), ..Self::default() }.with("Content-Range", range)
    }
}

/// Serves until the test process ends.
pub(crate) struct TestServer {
    pub(crate) address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl TestServer {
    /// `answer` gets each request and its number, from 0.
    pub(crate) fn start(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::serve_on(TcpListener::bind("127.0.0.1:0").unwrap(), answer)
    }

    /// The same on a port that others know already.
    pub(crate) fn serve_on(
        listener: TcpListener,
        answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&requests), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                thread::spawn(move || serve(stream, &seen, &*answer));
            }
        });
        Self { address, requests }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, seen: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request, usize) -> Reply) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let request = read_request(&mut reader)?;
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push(request.clone());
        seen.len() - 1
    };
    let reply = answer(&request, number);
    let mut stream = stream;
    let mut head = format!("HTTP/1.1 {} Test\r\nConnection: close\r\n", reply.status);
    if !reply.headers.iter().any(|(name, _)| ["Content-Length", "Transfer-Encoding"].contains(name)) {
        head.push_str(&format!("Content-Length: {}\r\n", reply.body.len()));
    }
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(b"\r\n").ok()?;
    stream.write_all(&reply.body[..reply.cut_after.unwrap_or(reply.body.len())]).ok()?;
    stream.flush().ok()?;
    if let Some(pause) = reply.trickle {
        for byte in reply.body.iter().skip(reply.cut_after.unwrap_or(0)) {
            stream.write_all(&[*byte]).ok()?;
            thread::sleep(pause);
        }
    }
    if reply.hang {
        thread::sleep(Duration::from_secs(60));
    }
    stream.shutdown(std::net::Shutdown::Write).ok()?;
    // Waiting for the client's end keeps what was sent from being thrown away by a reset.
    reader.read_to_end(&mut Vec::new()).ok()?;
    Some(())
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    Some(Request { path, headers })
}
