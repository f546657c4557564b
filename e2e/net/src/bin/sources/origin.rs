//! An origin that anybody may fetch from, and that sends whoever comes elsewhere: `/ok` is content, `/to/HEX` redirects to
//! the address in hexadecimal digits, and `/rebind` redirects to its own name after the name means another address.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::Weak;
use std::thread;

use anyhow::{Context, Result};

use crate::resolver::Resolver;

/// All addresses of the namespace, IPv4 ones too.
const LISTEN: &str = "[::]:80";
/// The name that changes its address while it is fetched from.
const REBINDING: &str = "rebinding.test";

/// Serves until the process ends.
pub(crate) fn start(resolver: Weak<Resolver>) -> Result<()> {
    let listener = TcpListener::bind(LISTEN).with_context(|| format!("cannot listen on {LISTEN}"))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let resolver = resolver.clone();
            thread::spawn(move || {
                if let Err(error) = answer(stream, &resolver) {
                    eprintln!("origin: {error:#}");
                }
            });
        }
    });
    Ok(())
}

fn answer(mut stream: TcpStream, resolver: &Weak<Resolver>) -> Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().context("no request")??;
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (status, header) = if path == "/ok" {
        ("200 OK", "Content-Type: text/plain".to_owned())
    } else if let Some(target) = path.strip_prefix("/to/") {
        ("302 Found", format!("Location: {}", String::from_utf8(hex::decode(target)?)?))
    } else if path == "/rebind" {
        let resolver = resolver.upgrade().context("the resolver has ended")?;
        resolver.rebind(REBINDING, IpAddr::V4(Ipv4Addr::LOCALHOST))?;
        ("302 Found", format!("Location: http://{REBINDING}/ok"))
    } else {
        ("404 Not Found", "Content-Type: text/plain".to_owned())
    };
    // Each connection carries one request, so that none is made for an address that was looked up before.
    write!(stream, "HTTP/1.1 {status}\r\n{header}\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n")?;
    Ok(())
}
