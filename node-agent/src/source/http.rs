//! Downloads: one try of one address into a [`Partial`], resumed by range when the origin still has the same content
//! (strong ETag or date pinned by `If-Range`), started over when it has not. What is asked of whom is in `request`, what is
//! on disk in `partial`. When to try again is the caller's, by [`super::retry`].

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use peerdist_core::distribution::SourceDigest;
use reqwest::header::{CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, LAST_MODIFIED};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::address_rule::{AddressForbidden, AddressRule, NameUnresolved};
use super::credentials::Credentials;
use super::disk::{DiskAdmission, Quota};
use super::error::SourceError;
use super::progress::{Phase, Progress};
use super::retry::{RetryPolicy, TRIES_ONCE_WITHIN};
use crate::http::install_tls_provider;

mod partial;
mod request;
#[cfg(test)]
mod tests;

pub use partial::Partial;
use partial::{Appender, Pinned};
pub use request::CredentialsUse;
use request::{Answer, RequestError, request, shown_url};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an origin may send nothing, when there is no hurry.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// An origin that sends less than this for as long as it may send nothing does not get further, as far as others who wait
/// for their packages are concerned.
const BYTES_PER_SECOND_MIN: f64 = 1024.0;
/// Pieces between network and disk; each has at most a few hundred KiB.
const QUEUED_PIECES_MAX: usize = 16;
/// Requests of one try: a second one when the first showed that the download must start over.
const REQUESTS_A_TRY: usize = 2;

/// Fetches addresses.
#[derive(Debug, Clone)]
pub struct Downloader {
    stall_timeout: Duration,
    rule: AddressRule,
}

/// One download.
pub struct Download<'a> {
    /// From where.
    pub url: &'a Url,
    /// What it must hash to.
    pub digest: Option<SourceDigest>,
    /// What the origin asks for.
    pub credentials: Option<&'a Credentials>,
    /// Where to.
    pub partial: &'a Partial,
    /// How much it may bring.
    pub quota: Quota,
    /// Counts.
    pub progress: &'a Arc<Progress>,
    /// Stops soon; what has arrived stays for the next try.
    pub cancel: &'a CancellationToken,
}

impl Downloader {
    /// A downloader as patient as the policy, from where the rule allows.
    pub fn new(policy: RetryPolicy, rule: AddressRule) -> Self {
        Self {
            rule,
            stall_timeout: match policy {
                RetryPolicy::Once => TRIES_ONCE_WITHIN,
                RetryPolicy::KeepTrying => STALL_TIMEOUT,
            },
        }
    }

    /// A client a try: it sees certificates that were added meanwhile.
    fn client(&self, download: &Download<'_>) -> Result<Client, reqwest::Error> {
        install_tls_provider();
        // Credentials without TLS are for this machine, and a proxy is another one.
        let is_direct = self.rule.is_checked() || (download.credentials.is_some() && download.url.scheme() == "http");
        let builder = || {
            let builder = Client::builder()
                .user_agent(concat!("peerdist/", env!("CARGO_PKG_VERSION")))
                .redirect(redirect::Policy::none())
                .referer(false)
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(self.stall_timeout)
                .dns_resolver(self.rule.clone());
            if is_direct { builder.no_proxy() } else { builder }
        };
        // A machine without any trusted certificate still downloads by http; https then says what is missing.
        builder().build().or_else(|_| builder().tls_certs_only([]).build())
    }

    /// Makes one try. Afterwards the partial's file is the whole content, checked against the digest.
    ///
    /// # Errors
    /// [`SourceError`], of which [`SourceError::is_final`] says whether another try can help.
    pub async fn fetch(&self, download: &Download<'_>) -> Result<(), SourceError> {
        let bytes_before = download.partial.load().flushed_bytes;
        let result = self.try_fetch(download).await;
        match result {
            // What starts over and breaks off at the same place gets nowhere, however much arrives.
            Err(SourceError::SourceUnavailable { uri, detail, .. }) => {
                let received_bytes = download.partial.load().flushed_bytes.saturating_sub(bytes_before);
                Err(SourceError::SourceUnavailable { uri, detail, received_bytes })
            }
            result => result,
        }
    }

    async fn try_fetch(&self, download: &Download<'_>) -> Result<(), SourceError> {
        let client = self.client(download).map_err(|error| download.unavailable(root_cause(&error)))?;
        for _ in 0..REQUESTS_A_TRY {
            let pinned = download.partial.load();
            if pinned.complete {
                return Ok(());
            }
            let pinned = if download.can_resume(&pinned) { pinned } else { Pinned::default() };
            let Answer { response, credentials } = tokio::select! {
                answer = request(&client, &self.rule, download.url, &pinned, download.credentials) => {
                    answer.map_err(|error| download.not_answered(error, self.stall_timeout))?
                }
                () = download.cancel.cancelled() => return Err(SourceError::Cancelled),
            };
            let Some(pinned) = download.accept(&response, credentials, pinned)? else {
                download.partial.discard()?;
                continue;
            };
            let resumed = pinned.flushed_bytes > 0;
            match self.receive(download, response, pinned).await {
                // The beginning was of other content than the rest, or damaged here.
                Err(SourceError::DigestMismatch { .. }) if resumed => {}
                result => return result,
            }
        }
        Err(download.unavailable("its content changed while it was downloaded".into()))
    }

    /// Streams the body to disk. The writer has a thread of its own, and flushes what it has however this ends.
    async fn receive(&self, download: &Download<'_>, response: Response, pinned: Pinned) -> Result<(), SourceError> {
        let left_bytes = pinned.total_bytes.map(|total| total.saturating_sub(pinned.flushed_bytes));
        download.progress.enter(Phase::Downloading, left_bytes.unwrap_or(0));
        let (sender, receiver) = mpsc::channel(QUEUED_PIECES_MAX);
        let writer = Writer {
            partial: download.partial.clone(),
            uri: download.uri(),
            digest: download.digest,
            quota: download.quota.clone(),
            progress: Arc::clone(download.progress),
        };
        let writer = tokio::task::spawn_blocking(move || writer.run(pinned, left_bytes, receiver));
        let pumped = self.pump(download, response, sender).await;
        let written = writer
            .await
            .unwrap_or_else(|error| Err(SourceError::library(download.partial.data())(io::Error::other(error))));
        match (pumped, written?) {
            (Err(error), _) => Err(error),
            (Ok(()), Written::All) => Ok(()),
            (Ok(()), Written::Part { bytes }) => {
                let expected = left_bytes.unwrap_or_default();
                let detail = format!("it ended after {bytes} bytes, {expected} were announced");
                Err(download.unavailable(detail))
            }
        }
    }

    /// Ends the channel properly only at the end of the body: the writer tells a break by the missing mark.
    async fn pump(
        &self,
        download: &Download<'_>,
        mut response: Response,
        sender: mpsc::Sender<Piece>,
    ) -> Result<(), SourceError> {
        let (mut waited, mut received_bytes) = (Duration::ZERO, 0_u64);
        loop {
            let begin = Instant::now();
            let piece = tokio::select! {
                piece = response.chunk() => piece,
                () = download.cancel.cancelled() => return Err(SourceError::Cancelled),
                // A writer that is gone has an error to tell.
                () = sender.closed() => return Ok(()),
            };
            let piece = piece.map_err(|error| download.failed(&error, self.stall_timeout))?;
            let bytes = piece.as_ref().map_or(0, |bytes| bytes.len() as u64);
            download.progress.add_source(bytes, begin.elapsed());
            waited += begin.elapsed();
            received_bytes += bytes;
            if waited >= self.stall_timeout {
                let seconds = waited.as_secs_f64();
                if piece.is_some() && received_bytes < (BYTES_PER_SECOND_MIN * seconds) as u64 {
                    let detail = format!("only {received_bytes} bytes in {seconds:.0} s");
                    return Err(download.unavailable(detail));
                }
                (waited, received_bytes) = (Duration::ZERO, 0);
            }
            let is_end = piece.is_none();
            let sent = sender.send(piece.map_or(Piece::End, Piece::Bytes)).await;
            if is_end || sent.is_err() {
                return Ok(());
            }
        }
    }
}

impl Download<'_> {
    fn uri(&self) -> String {
        shown_url(self.url)
    }

    fn can_resume(&self, pinned: &Pinned) -> bool {
        pinned.validator.is_some() || self.digest.is_some()
    }

    /// What the response brings: the rest or the whole. `None`: neither, start over.
    fn accept(
        &self,
        response: &Response,
        credentials: CredentialsUse,
        pinned: Pinned,
    ) -> Result<Option<Pinned>, SourceError> {
        let offset = pinned.flushed_bytes;
        match response.status() {
            StatusCode::OK => Ok(Some(Pinned {
                uri: self.uri(),
                validator: validator(response.headers()),
                total_bytes: response.content_length(),
                flushed_bytes: 0,
                complete: false,
            })),
            StatusCode::PARTIAL_CONTENT if offset > 0 => {
                let fits = content_range(response.headers()).is_some_and(|(first, total)| {
                    first == offset && pinned.total_bytes.is_none_or(|pinned| total == pinned)
                });
                let same = pinned.validator.is_none()
                    || validator(response.headers()).is_none_or(|now| Some(now) == pinned.validator);
                Ok((fits && same).then_some(pinned))
            }
            StatusCode::RANGE_NOT_SATISFIABLE if offset > 0 => Ok(None),
            status => Err(self.refused(status, credentials)),
        }
    }

    fn refused(&self, status: StatusCode, credentials: CredentialsUse) -> SourceError {
        match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                SourceError::SourceMissing { uri: self.uri(), detail: format!(" (status {})", status.as_u16()) }
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
                self.unavailable(format!("status {}", status.as_u16()))
            }
            status if status.is_server_error() => self.unavailable(format!("status {}", status.as_u16())),
            status => SourceError::SourceRefused { uri: self.uri(), status: status.as_u16(), credentials },
        }
    }

    fn not_answered(&self, error: RequestError, stall_timeout: Duration) -> SourceError {
        match error {
            RequestError::Http(error) => self.failed(&error, stall_timeout),
            RequestError::Redirect(refusal) => {
                SourceError::RedirectRefused { uri: self.uri(), detail: refusal.to_string() }
            }
            RequestError::Forbidden(forbidden) => self.forbidden(forbidden),
        }
    }

    fn failed(&self, error: &reqwest::Error, stall_timeout: Duration) -> SourceError {
        let uri = self.uri();
        if let Some(forbidden) = find::<AddressForbidden>(error) {
            return self.forbidden(*forbidden);
        }
        if let Some(NameUnresolved { name, source }) = find(error) {
            return SourceError::NameUnresolved { uri, name: name.clone(), detail: source.to_string() };
        }
        if find::<io::Error>(error).is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return SourceError::ConnectionRefused { uri };
        }
        if let Some(rustls::Error::InvalidCertificate(fault)) = find(error) {
            return SourceError::ServerUntrusted { uri, detail: fault.to_string() };
        }
        if error.is_timeout() && !error.is_connect() {
            return self.unavailable(format!("no byte for {} s", stall_timeout.as_secs()));
        }
        self.unavailable(root_cause(error))
    }

    fn forbidden(&self, AddressForbidden(address): AddressForbidden) -> SourceError {
        SourceError::AddressForbidden { uri: self.uri(), address }
    }

    /// How far it got is filled in when the try has ended.
    fn unavailable(&self, detail: String) -> SourceError {
        SourceError::SourceUnavailable { uri: self.uri(), detail, received_bytes: 0 }
    }
}

/// What goes from the network to the writer.
enum Piece {
    Bytes(Bytes),
    End,
}

/// What the writer made of it.
enum Written {
    All,
    Part { bytes: u64 },
}

struct Writer {
    partial: Partial,
    uri: String,
    digest: Option<SourceDigest>,
    quota: Quota,
    progress: Arc<Progress>,
}

impl Writer {
    fn run(
        self,
        pinned: Pinned,
        left_bytes: Option<u64>,
        mut pieces: mpsc::Receiver<Piece>,
    ) -> Result<Written, SourceError> {
        let begin = pinned.flushed_bytes;
        // What is there besides is of no use any more, and the rest may need its room.
        self.partial.cut(begin)?;
        let folder = self.partial.data().parent().unwrap_or(self.partial.data());
        let mut disk = DiskAdmission::within(folder, self.quota.clone())?;
        disk.expect(left_bytes.unwrap_or(0))?;
        let mut appender = Appender::open(&self.partial, pinned, self.digest, disk, &self.progress)?;
        while let Some(piece) = pieces.blocking_recv() {
            let bytes = appender.written_bytes() - begin;
            match piece {
                Piece::Bytes(bytes) => {
                    appender.append(&bytes).map_err(|error| self.without_room(error, left_bytes))?;
                }
                Piece::End if left_bytes.is_none_or(|left| left == bytes) => {
                    return appender.finish(&self.uri).map(|()| Written::All);
                }
                Piece::End => break,
            }
        }
        appender.flush()?;
        Ok(Written::Part { bytes: appender.written_bytes() - begin })
    }

    /// Where nobody said how much there is, nobody knows what room would do: others shall have what this has taken. The
    /// rest of what was announced may fit some time, and is waited for.
    fn without_room(&self, error: SourceError, left_bytes: Option<u64>) -> SourceError {
        let is_hopeless = left_bytes.is_none() && matches!(error, SourceError::DiskFull { .. });
        let discarded = if is_hopeless { self.partial.discard() } else { Ok(()) };
        discarded.err().unwrap_or(error)
    }
}

/// What must still hold when the rest is asked for: a strong ETag, or the date.
fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    text(ETAG).filter(|etag| !etag.starts_with("W/")).or_else(|| text(LAST_MODIFIED))
}

/// First byte and total of `Content-Range: bytes 10-99/100`.
fn content_range(headers: &HeaderMap) -> Option<(u64, u64)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()?))
}

/// Whether headers with these values allow an unfinished download to go on.
pub(crate) fn is_resumable(range: &[u8], etag: &[u8]) -> bool {
    let value = |bytes| HeaderValue::from_bytes(bytes).ok();
    let pairs = [(CONTENT_RANGE, value(range)), (ETAG, value(etag))];
    let headers: HeaderMap = pairs.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    content_range(&headers).is_some() && validator(&headers).is_some()
}

/// The first error of a kind among the causes.
fn find<E: Error + 'static>(error: &reqwest::Error) -> Option<&E> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // An I/O error names the cause of what it wraps as its own, and so leaves out what it wraps.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = wrapped.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source());
    }
    None
}

/// The innermost message: the outer ones repeat the address, query included.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match cause.downcast_ref::<reqwest::Error>() {
        Some(_) => "the request failed".to_owned(),
        None => cause.to_string(),
    }
}
