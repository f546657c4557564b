//! A small program to be run inside a namespace: sends datagrams from a chosen port, holds a port, or fetches a page.
//! It stands in for hosts that misbehave, and for a browser.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A page that takes longer than this is not served at all.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["send", from, to, count] => send(from, to, count.parse()?),
        ["hold", address] => hold(address),
        ["fetch", address, path] => fetch(address, path),
        _ => bail!("usage: send FROM TO COUNT | hold ADDRESS | fetch ADDRESS PATH, addresses as IP:PORT"),
    }
}

fn send(from: &str, to: &str, count: u32) -> Result<()> {
    let socket = UdpSocket::bind(from).with_context(|| format!("cannot bind {from}"))?;
    socket.set_broadcast(true)?;
    for _ in 0..count {
        // The firewall refuses what no row covers: that is what we are here to provoke.
        if let Err(error) = socket.send_to(b"probe", to) {
            println!("not sent: {error}");
        }
    }
    Ok(())
}

fn hold(address: &str) -> Result<()> {
    let _socket = UdpSocket::bind(address).with_context(|| format!("cannot bind {address}"))?;
    println!("holding {address}");
    loop {
        std::thread::park();
    }
}

fn fetch(address: &str, path: &str) -> Result<()> {
    let address: SocketAddr = address.parse()?;
    let mut stream = TcpStream::connect_timeout(&address, FETCH_TIMEOUT)?;
    stream.set_read_timeout(Some(FETCH_TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    if !head.starts_with("HTTP/1.0 200") && !head.starts_with("HTTP/1.1 200") {
        bail!("{address}{path}: {}", head.lines().next().unwrap_or_default());
    }
    print!("{body}");
    Ok(())
}
