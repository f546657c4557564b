//! Names of Services for pods, as a cluster's DNS gives them: UDP, addresses of version 4, nothing else.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client};
use tokio::net::UdpSocket;

/// Where programs ask.
const PORT: u16 = 53;
/// Most of a question that is read; without extensions there is no longer one.
const QUESTION_BYTES_MAX: usize = 512;
/// Bytes of a header.
const HEADER_BYTES: usize = 12;
/// What follows a Service's name and namespace.
const SUFFIX: [&str; 3] = ["svc", "cluster", "local"];
/// How long an answer may be kept.
const KEPT_SECONDS: u32 = 5;
/// Kind and class of an address of version 4.
const ADDRESS: [u8; 4] = [0, 1, 0, 1];

/// Answers until the runtime ends.
///
/// # Errors
/// When the port cannot be bound.
pub async fn serve(address: Ipv4Addr, client: Client) -> Result<()> {
    let socket = UdpSocket::bind((address, PORT)).await.context("cannot bind the port of names")?;
    tokio::spawn(async move {
        let mut buffer = [0; QUESTION_BYTES_MAX];
        while let Ok((length, asker)) = socket.recv_from(&mut buffer).await {
            let Some(question) = Question::parse(&buffer[..length]) else { continue };
            let found = address_of(&client, &question.labels).await;
            let _ = socket.send_to(&question.answer(found), asker).await;
        }
    });
    Ok(())
}

async fn address_of(client: &Client, labels: &[String]) -> Option<Ipv4Addr> {
    let [name, namespace, suffix @ ..] = labels else { return None };
    if suffix != SUFFIX {
        return None;
    }
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let service = services.get_opt(name).await.ok()??;
    service.spec?.cluster_ip?.parse().ok()
}

/// The one question of a datagram.
struct Question {
    number: [u8; 2],
    labels: Vec<String>,
    /// Name, kind and class, as they came.
    text: Vec<u8>,
}

impl Question {
    fn parse(datagram: &[u8]) -> Option<Self> {
        let number = [*datagram.first()?, *datagram.get(1)?];
        let (mut labels, mut at) = (Vec::new(), HEADER_BYTES);
        loop {
            let length = usize::from(*datagram.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            let label = datagram.get(at..at + length)?;
            labels.push(String::from_utf8_lossy(label).to_lowercase());
            at += length;
        }
        let text = datagram.get(HEADER_BYTES..at + ADDRESS.len())?.to_vec();
        Some(Self { number, labels, text })
    }

    /// A name that exists has no error, whatever kind of answer is asked for.
    fn answer(&self, found: Option<Ipv4Addr>) -> Vec<u8> {
        let address = found.filter(|_| self.text.ends_with(&ADDRESS));
        let no_such_name = 3;
        let error = if found.is_some() { 0 } else { no_such_name };
        let mut answer = self.number.to_vec();
        answer.extend([0x85, 0x80 | error, 0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
        answer.extend(&self.text);
        if let Some(address) = address {
            // The name of the question again.
            answer.extend([0xc0, 0x0c]);
            answer.extend(ADDRESS);
            answer.extend(KEPT_SECONDS.to_be_bytes());
            answer.extend([0, 4]);
            answer.extend(address.octets());
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_is_read_and_answered_with_an_address() {
        let mut datagram = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        datagram.extend(b"\x01A\x02ns\x03svc\x00\x00\x01\x00\x01");
        let question = Question::parse(&datagram).unwrap();
        assert_eq!(question.labels, ["a", "ns", "svc"]);
        let answer = question.answer(Some(Ipv4Addr::new(10, 96, 0, 1)));
        assert!(answer.starts_with(&[7, 9]) && answer.ends_with(&[10, 96, 0, 1]));
        assert_eq!(question.answer(None)[3] & 15, 3);
        assert!(Question::parse(&datagram[..14]).is_none());
    }
}
